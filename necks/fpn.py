"""The feature pyramid network (1612.03144)."""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Annotated, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ..structures import FeatureInfo, Features, PartConfig
from .base import Neck, necks
from .extra_levels import ExtraKind, extra_levels


class FPNConfig(PartConfig):
    """Defaults are the paper's for R-CNN, which torchvision and detectron2 share."""

    name: str = "fpn"
    channels: PositiveInt = 256
    levels: tuple[Annotated[str, Field(pattern=r"^c\d$")], ...] | None = Field(default=None, min_length=1)
    """Levels to read, fine to coarse; None takes every ``c`` level."""
    extra: ExtraKind = "pool"
    norm: Literal["none", "batch"] = "none"
    """What follows each convolution, but those of the extra levels."""


@necks.register("fpn", FPNConfig)
class FPN(Neck):
    """Every resolution with the meaning of the coarsest: c2..c5 -> p2..p5 and the extra levels. Sizes may be odd."""

    def __init__(self, feature_info: Mapping[str, FeatureInfo], config: FPNConfig = FPNConfig()) -> None:
        super().__init__()
        self.config = config
        self.levels = _levels(feature_info, config)
        channels, coarsest = config.channels, feature_info[self.levels[-1]]
        self.lateral = nn.ModuleDict()
        self.output = nn.ModuleDict()
        for level in self.levels:
            self.lateral[level] = _convolution(feature_info[level].channels, channels, 1, config.norm)
            self.output[f"p{level[1:]}"] = _convolution(channels, channels, 3, config.norm)
        self.extra = extra_levels(config.extra, coarsest.channels, channels)
        count = len(self.levels) + (self.extra.count if self.extra is not None else 0)
        finest, stride = int(self.levels[0][1:]), feature_info[self.levels[0]].stride
        self.feature_info = {f"p{finest + step}": FeatureInfo(channels, stride * 2**step) for step in range(count)}
        self._initialize()

    def _initialize(self) -> None:
        """Uniform by fan-in, biases zero, as torchvision and detectron2 (Caffe2's XavierFill)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Features) -> Features:
        laterals = [self.lateral[level](features[level]) for level in self.levels]
        merged = list(accumulate(reversed(laterals), _add_top_down))
        outputs = [
            convolution(level) for convolution, level in zip(self.output.values(), reversed(merged), strict=True)
        ]
        if self.extra is not None:
            outputs += self.extra(features[self.levels[-1]], outputs[-1])
        return dict(zip(self.feature_info, outputs, strict=True))


def _add_top_down(coarse: Float[Tensor, "b c _ _"], lateral: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The coarse level enlarged by nearest neighbour to the exact size of the finer, as torchvision does it."""
    return lateral + F.interpolate(coarse, size=lateral.shape[-2:], mode="nearest")


def _convolution(in_channels: int, channels: int, kernel: int, norm: Literal["none", "batch"]) -> nn.Module:
    convolution = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=norm == "none")
    return convolution if norm == "none" else nn.Sequential(convolution, nn.BatchNorm2d(channels))


def _levels(feature_info: Mapping[str, FeatureInfo], config: FPNConfig) -> tuple[str, ...]:
    """The levels to read; ValueError where they are not there or do not halve one another."""
    levels = config.levels or tuple(level for level in feature_info if level.startswith("c"))
    if not levels or any(level not in feature_info for level in levels):
        raise ValueError(f"FPN reads levels {levels or 'c2, c3, ...'}; the pyramid has {tuple(feature_info)}")
    strides = {level: feature_info[level].stride for level in levels}
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides.values())):
        raise ValueError(
            f"FPN needs each level to halve the one before; got strides {strides}: "
            "give it the levels that do, or a backbone with output_stride=32"
        )
    return levels
