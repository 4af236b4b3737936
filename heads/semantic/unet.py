"""The decoder of U-Net: upsampled features are concatenated with those of the next finer level (1505.04597)."""

import itertools
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ...ops import NormLayer, norm_layer
from ...structures import FeatureInfo, Features, Images
from ..base import HEADS, require_levels
from ..class_rows import ClassRows
from .base import SemanticConfig, SemanticHead
from .layers import initialize, spatial_block

MIN_CHANNELS = 16
"""The minimum number of channels of a decoder step."""


class UNetConfig(SemanticConfig):
    """The options of a U-Net decoder."""

    name: Literal["unet"] = "unet"
    levels: tuple[str, ...] | None = Field(default=None, min_length=2)
    """The levels to read, from fine to coarse. None: all levels of the backbone."""
    channels: PositiveInt = 256
    """Channels of the coarsest step; every finer step has half as many, but at least 16
    (segmentation_models_pytorch: 256, 128, 64, 32, 16)."""
    full_resolution: bool = False
    """A last step without a finer level, which ends at the resolution of the image. segmentation_models_pytorch:
    True, with the levels c1..c5."""
    logits_kernel: Literal[1, 3] = 1
    """Kernel size of the convolution to the logits. segmentation_models_pytorch: 3."""


class UpStep(nn.Module):
    """One decoder step: upsample the coarser map, concatenate it with the finer map if any, apply two convolutions.

    Upsampling is by nearest neighbor, as in segmentation_models_pytorch; the paper uses transposed convolutions.
    """

    def __init__(self, coarse: int, fine: int, channels: int, norm: NormLayer) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            spatial_block(coarse + fine, channels, norm), spatial_block(channels, channels, norm)
        )

    def forward(
        self, coarse: Float[Tensor, "b c _ _"], fine: Float[Tensor, "b d h w"] | None, size: tuple[int, int]
    ) -> Float[Tensor, "b e h w"]:
        """Compute the map of the step, which has the (height, width) ``size`` of the finer map."""
        upsampled = F.interpolate(coarse, size=size, mode="nearest")
        return self.convolutions(upsampled if fine is None else torch.cat([upsampled, fine], dim=1))


@HEADS.register("unet", UNetConfig)
class UNetHead(SemanticHead):
    """U-Net decoder: computes logits at the resolution of the finest level."""

    config: UNetConfig
    class_rows: ClassVar = {"logits": ClassRows()}

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: UNetConfig = UNetConfig()
    ) -> None:
        super().__init__(feature_info, num_classes, config)
        self.levels = config.levels or tuple(level for level in feature_info if level.startswith("c"))
        require_levels("U-Net", feature_info, self.levels)
        strides = [feature_info[level].stride for level in self.levels]
        if len(strides) < 2 or strides != sorted(strides):
            raise ValueError(
                "U-Net needs at least two levels, from fine to coarse; got strides "
                f"{dict(zip(self.levels, strides, strict=True))}: choose others in the head's 'levels', or request "
                "more levels from the backbone"
            )
        *finer, coarsest = [feature_info[level].channels for level in self.levels]
        if config.full_resolution:
            finer = [0, *finer]
        widths = [coarsest, *(max(config.channels >> step, MIN_CHANNELS) for step in range(len(finer)))]
        norm = norm_layer(config.norm)
        self.steps = nn.ModuleList(
            UpStep(coarse, fine, width, norm)
            for (coarse, width), fine in zip(itertools.pairwise(widths), reversed(finer), strict=True)
        )
        self.logits = nn.Conv2d(widths[-1], num_classes, config.logits_kernel, padding=config.logits_kernel // 2)
        initialize(self)

    def forward(self, features: Features, images: Images) -> Float[Tensor, "b k _ _"]:
        *finer, hidden = [features[level] for level in self.levels]
        height, width = images.padded_size
        for step, fine in itertools.zip_longest(self.steps, reversed(finer)):
            size = (height, width) if fine is None else (fine.shape[2], fine.shape[3])
            hidden = step(hidden, fine, size)
        return self.logits(hidden)
