"""The semantic branch of Panoptic FPN: every level to the finest one's size, and their sum (1901.02446 section 3.1)."""

import itertools
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ...ops import NormKind, NormLayer, norm_layer
from ...structures import FeatureInfo, Features, Images
from ..base import HEADS
from ..class_rows import ClassRows
from .base import SemanticConfig, SemanticHead
from .layers import initialize, require_levels, resize, spatial_block


class SemanticFPNConfig(SemanticConfig):
    """Defaults are the paper's."""

    name: Literal["semantic_fpn"] = "semantic_fpn"
    levels: tuple[str, ...] = Field(default=("p2", "p3", "p4", "p5"), min_length=1)
    """Fine to coarse, each half the size of the one before."""
    channels: PositiveInt = 128
    norm: NormKind = "group"


class UpsampleBranch(nn.Module):
    """A 3x3 convolution, then bilinearly to the size of the next finer level; and so on."""

    def __init__(self, in_channels: int, channels: int, count: int, norm: NormLayer) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * count]
        self.stages = nn.ModuleList(spatial_block(*pair, norm) for pair in itertools.pairwise(widths))

    def forward(self, level: Float[Tensor, "b c _ _"], sizes: Sequence[torch.Size]) -> Float[Tensor, "b d h w"]:
        """``sizes`` are those to go through, coarse to fine."""
        for stage, size in zip(self.stages, sizes, strict=True):
            level = resize(stage(level), size)
        return level


@HEADS.register("semantic_fpn", SemanticFPNConfig)
class SemanticFPNHead(SemanticHead):
    """Pyramid -> logits on the grid of the finest level, to which the others climb; it has one convolution itself."""

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
                f"Semantic FPN needs each level to halve the one before; got strides {strides}: name others in the "
                "head's 'levels', or give it a neck such as 'fpn'"
            )
        norm = norm_layer(config.norm)
        self.climbs = nn.ModuleDict(
            {
                level: UpsampleBranch(feature_info[level].channels, config.channels, max(place, 1), norm)
                for place, level in enumerate(config.levels)
            }
        )
        self.logits = nn.Conv2d(config.channels, num_classes, 1)
        initialize(self)

    def forward(self, features: Features, images: Images) -> Float[Tensor, "b k _ _"]:
        sizes = [features[level].shape[-2:] for level in self.climbs]
        climbed = [
            climb(features[level], sizes[: max(place, 1)][::-1])
            for place, (level, climb) in enumerate(self.climbs.items())
        ]
        return self.logits(reduce(torch.add, climbed))
