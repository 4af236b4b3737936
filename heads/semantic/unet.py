"""U-Net's decoder: level by level up the pyramid, upsampled features beside those of the finer level (1505.04597)."""

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
"""The fewest channels of a step."""


class UNetConfig(SemanticConfig):
    """The hyper-parameters of a U-Net of any number of levels; its logits are on the grid of the finest."""

    name: Literal["unet"] = "unet"
    levels: tuple[str, ...] | None = Field(default=None, min_length=2)
    """The levels to read, fine to coarse; None takes every level of the backbone."""
    channels: PositiveInt = 256
    """Channels of the coarsest step; every finer one has half as many, down to 16 (smp's 256, 128, 64, 32, 16)."""


class UpStep(nn.Module):
    """One step up the pyramid: the coarser map is upsampled and joined to the finer, then two convolutions.

    Upsampling is by nearest neighbour, as in smp; the paper learns a deconvolution.
    """

    def __init__(self, coarse: int, fine: int, channels: int, norm: NormLayer) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            spatial_block(coarse + fine, channels, norm), spatial_block(channels, channels, norm)
        )

    def forward(self, coarse: Float[Tensor, "b c _ _"], fine: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e h w"]:
        upsampled = F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
        return self.convolutions(torch.cat([upsampled, fine], dim=1))


@HEADS.register("unet", UNetConfig)
class UNetHead(SemanticHead):
    """Pyramid -> logits on the grid of the finest level."""

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
                f"U-Net needs two levels or more, fine to coarse; got {dict(zip(self.levels, strides, strict=True))}: "
                "name others in the head's 'levels', or let the backbone give more"
            )
        *finer, coarsest = [feature_info[level].channels for level in self.levels]
        widths = [coarsest, *(max(config.channels >> step, MIN_CHANNELS) for step in range(len(finer)))]
        norm = norm_layer(config.norm)
        self.steps = nn.ModuleList(
            UpStep(coarse, fine, width, norm)
            for (coarse, width), fine in zip(itertools.pairwise(widths), reversed(finer), strict=True)
        )
        self.logits = nn.Conv2d(widths[-1], num_classes, 1)
        initialize(self)

    def forward(self, features: Features, images: Images) -> Float[Tensor, "b k _ _"]:
        *finer, hidden = [features[level] for level in self.levels]
        for step, fine in zip(self.steps, reversed(finer), strict=True):
            hidden = step(hidden, fine)
        return self.logits(hidden)
