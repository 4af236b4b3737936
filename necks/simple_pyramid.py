"""The simple feature pyramid of ViTDet, built from a single resolution of the backbone (2203.16527 section 3)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator
from torch import nn

from ..ops import ActivationKind, NormKind, NormLayer, activation_layer, conv_block, norm_layer
from ..structures import FeatureInfo, Features, PartConfig
from .base import NECKS, Neck
from .extra_levels import ExtraCount, extra_levels
from .layers import initialize
from .levels import InputLevels, backbone_levels, pyramid_info


class SimplePyramidConfig(PartConfig):
    """The options of a simple pyramid. The defaults are those of the paper and of detectron2."""

    name: str = "simple_pyramid"
    channels: PositiveInt = 256
    levels: Annotated[InputLevels, Field(max_length=1)] | None = None
    """The level to read. None: the coarsest ``c`` level."""
    strides: tuple[PositiveInt, ...] = Field(default=(4, 8, 16, 32), min_length=1)
    """The strides of the output levels in pixels: powers of two, each twice the previous one."""
    extra: Literal["none", "pool", "conv"] = "pool"
    """How extra coarser levels are computed."""
    extra_count: ExtraCount | None = None
    """The number of extra levels. None: one for ``pool``, two for ``conv``."""
    norm: NormKind = "layer"
    """The norm after each convolution, except in the extra levels, and between two transposed convolutions."""
    norm_eps: NonNegativeFloat = 1e-6
    activation: ActivationKind = "gelu"
    """The activation between two transposed convolutions, after the norm."""

    @field_validator("strides")
    @classmethod
    def _check_strides(cls, strides: tuple[int, ...]) -> tuple[int, ...]:
        if strides[0].bit_count() != 1 or any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
            raise ValueError(f"strides must be powers of two, each twice the previous, as (4, 8, 16); got {strides}")
        return strides


@NECKS.register("simple_pyramid", SimplePyramidConfig)
class SimplePyramid(Neck):
    """Simple feature pyramid: one map, upsampled by transposed convolutions and downsampled by pooling.

    It computes p2..p5, where pN has stride 2^N for any stride of the input, and the extra levels. A level finer than
    the input subdivides the input's cells, so it has more than ceil(size / stride) cells if the input's stride does not
    divide the image size.
    """

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], config: SimplePyramidConfig = SimplePyramidConfig()
    ) -> None:
        super().__init__()
        self.config = config
        self.levels = (_choose_level(feature_info, config),)
        channels, norm = config.channels, norm_layer(config.norm, config.norm_eps)
        self.extra = extra_levels(config.extra, config.extra_count, channels, channels)
        finest, count = config.strides[0], len(config.strides) + self.extra.count
        self.feature_info = pyramid_info(f"p{_exponent(finest)}", finest, channels, count)
        self.scale = nn.ModuleDict()
        self.output = nn.ModuleDict()
        for level, stride in zip(self.feature_info, config.strides, strict=False):
            self.scale[level], width = _rescale(feature_info[self.levels[0]], stride, norm, config.activation)
            self.output[level] = nn.Sequential(
                conv_block(width, channels, 1, norm), conv_block(channels, channels, 3, norm)
            )
        initialize(self)

    def forward(self, features: Features) -> Features:
        source = features[self.levels[0]]
        outputs = [
            output(scale(source)) for scale, output in zip(self.scale.values(), self.output.values(), strict=True)
        ]
        outputs += self.extra(source, outputs[-1])
        return dict(zip(self.feature_info, outputs, strict=True))


def _rescale(info: FeatureInfo, stride: int, norm: NormLayer, activation: ActivationKind) -> tuple[nn.Module, int]:
    """Build the layers that resample a map to another stride; return them with their number of output channels.

    Each doubling of the resolution halves the number of channels.
    """
    if stride == info.stride:
        return nn.Identity(), info.channels
    if stride > info.stride:
        return nn.MaxPool2d(stride // info.stride, ceil_mode=True), info.channels
    layers: list[nn.Module] = []
    width = info.channels
    for step in range(_exponent(info.stride // stride)):
        if step > 0:
            layers += [norm(width), activation_layer(activation)]
        layers.append(nn.ConvTranspose2d(width, width // 2, 2, stride=2))
        width //= 2
    return nn.Sequential(*layers), width


def _choose_level(feature_info: Mapping[str, FeatureInfo], config: SimplePyramidConfig) -> str:
    """Return the level to read; raise ValueError if it is missing or its stride is not a power of two."""
    levels = config.levels or backbone_levels(feature_info)[-1:]
    if not levels or levels[0] not in feature_info:
        raise ValueError(
            f"SimplePyramid reads a level {levels or 'c2, c3, ...'}, but the input has {tuple(feature_info)}: "
            "choose a level of the backbone in `levels`"
        )
    stride = feature_info[levels[0]].stride
    if stride.bit_count() != 1:
        raise ValueError(
            f"SimplePyramid doubles and halves the map's stride to {config.strides}, so it must be a power of two; "
            f"got {levels[0]} of stride {stride}: choose a backbone with a patch size of 8, 16 or 32"
        )
    return levels[0]


def _exponent(power_of_two: int) -> int:
    return power_of_two.bit_length() - 1
