"""The semantic branch of Panoptic FPN: the sum of all levels, upsampled to the finest (1901.02446 section 3.1)."""

import itertools
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ...ops import NormKind, NormLayer, norm_layer, resize_maps
from ...structures import FeatureInfo, Features, Images
from ..base import HEADS, require_levels
from ..class_rows import ClassRows
from .base import SemanticConfig, SemanticHead
from .layers import initialize, spatial_block


class SemanticFPNConfig(SemanticConfig):
    """The options of Semantic FPN. Defaults are the paper's."""

    name: Literal["semantic_fpn"] = "semantic_fpn"
    levels: tuple[str, ...] = Field(default=("p2", "p3", "p4", "p5"), min_length=1)
    """The levels to sum, from fine to coarse, each half the size of the previous level."""
    channels: PositiveInt = 128
    norm: NormKind = "group"


class UpsampleBranch(nn.Module):
    """Upsampling of a level to the finest: a 3x3 convolution and a bilinear resize for each level in between."""

    def __init__(self, in_channels: int, channels: int, count: int, norm: NormLayer, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        widths = [in_channels, *[channels] * count]
        self.stages = nn.ModuleList(spatial_block(*pair, norm) for pair in itertools.pairwise(widths))

    def forward(self, level: Float[Tensor, "b c _ _"], sizes: Sequence[torch.Size]) -> Float[Tensor, "b d h w"]:
        """Resize the level to each of the (height, width) in ``sizes`` in turn, from coarse to fine."""
        for stage, (height, width) in zip(self.stages, sizes, strict=True):
            level = resize_maps(stage(level), (height, width), self.align_corners)
        return level


@HEADS.register("semantic_fpn", SemanticFPNConfig)
class SemanticFPNHead(SemanticHead):
    """Semantic FPN: computes logits at the resolution of the finest level."""

    config: SemanticFPNConfig
    class_rows: ClassVar = {"logits": ClassRows()}

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: SemanticFPNConfig = SemanticFPNConfig()
    ) -> None:
        super().__init__(feature_info, num_classes, config)
        require_levels("Semantic FPN", feature_info, config.levels)
        strides = {level: feature_info[level].stride for level in config.levels}
        if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides.values())):
            raise ValueError(
                f"Semantic FPN needs levels that each halve the previous; got strides {strides}: choose others in the "
                "head's 'levels', or add a neck such as 'fpn'"
            )
        norm = norm_layer(config.norm)
        # The finest level is not resized, but has one convolution too.
        self.scale_heads = nn.ModuleDict(
            {
                level: UpsampleBranch(
                    feature_info[level].channels, config.channels, max(index, 1), norm, config.align_corners
                )
                for index, level in enumerate(config.levels)
            }
        )
        self.logits = nn.Conv2d(config.channels, num_classes, 1)
        initialize(self)

    def forward(self, features: Features, images: Images) -> Float[Tensor, "b k _ _"]:
        sizes = [features[level].shape[-2:] for level in self.scale_heads]
        upsampled = [
            branch(features[level], sizes[: max(index, 1)][::-1])
            for index, (level, branch) in enumerate(self.scale_heads.items())
        ]
        return self.logits(reduce(torch.add, upsampled))
