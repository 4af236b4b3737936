"""DeepLabv3 (1706.05587) and, with a low-level feature, DeepLabv3+ (1802.02611)."""

import functools
import itertools
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ...ops import conv_block, norm_layer, resize_maps
from ...structures import Config, FeatureInfo, Features, Images
from ..base import HEADS, require_levels
from ..class_rows import ClassRows
from .aspp import ASPP
from .base import AuxiliaryConfig, SemanticConfig, SemanticHead
from .layers import initialize, spatial_block

RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
"""The default dilation rates by the stride of the level; in pixels they are equal (1706.05587 section 3.3)."""


class LowLevelConfig(Config):
    """The finer level that DeepLabv3+ concatenates with the ASPP features (1802.02611 section 3.1)."""

    level: str = "c2"
    channels: PositiveInt = 48
    """The number of channels to which the level is reduced, so that it does not outweigh the ASPP features."""


class DeepLabConfig(SemanticConfig):
    """The options of DeepLab. Defaults are DeepLabv3's, for a backbone with ``output_stride=16`` (torchvision: 8)."""

    name: Literal["deeplab"] = "deeplab"
    level: str = "c5"
    """The input level of the ASPP."""
    rates: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)
    """The rates of the dilated convolutions. None: 6, 12, 18 at stride 16; 12, 24, 36 at stride 8."""
    channels: PositiveInt = 256
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout probability after the ASPP; 0.1 in the authors' code and in detectron2, 0.5 in torchvision.
    MMSegmentation has it before the logits."""
    project_kernel: Literal[1, 3] = 1
    """Kernel size of the convolution after the branches of the ASPP. MMSegmentation: 3."""
    aspp_convolution: bool = False
    """A 3x3 convolution after the ASPP, before its features are upsampled. segmentation_models_pytorch's v3+: True."""
    low_level: LowLevelConfig | None = None
    """The low-level feature of DeepLabv3+. None: DeepLabv3."""
    convolutions: NonNegativeInt | None = None
    """Number of 3x3 convolutions before the logits. None: one in v3, as in torchvision (the paper has none), two in
    v3+."""
    separable: bool = False
    """Use depthwise separable 3x3 convolutions in the ASPP and after it (1802.02611 section 3.1)."""
    depthwise_norm: bool = True
    """Put a norm and a ReLU after the depthwise convolution of each too. segmentation_models_pytorch: False."""

    @property
    def decoder_convolutions(self) -> int:
        """The number of 3x3 convolutions before the logits."""
        if self.convolutions is not None:
            return self.convolutions
        return 1 if self.low_level is None else 2

    def rates_at(self, stride: int) -> tuple[int, ...]:
        """Return the dilation rates for a level of this stride; ValueError if there is no default for it."""
        if self.rates is not None:
            return self.rates
        if stride not in RATES:
            raise ValueError(
                f"DeepLab has default rates for a level of stride {' or '.join(map(str, RATES))}, but {self.level!r} "
                f"has stride {stride}: set output_stride=16 in the backbone, or rates in the head"
            )
        return RATES[stride]


TORCHVISION_DEEPLAB = DeepLabConfig(dropout=0.5, auxiliary=AuxiliaryConfig(weight=0.5))
"""The head of torchvision's ``deeplabv3_resnet50``, for a backbone with ``output_stride=8``."""


@HEADS.register("deeplab", DeepLabConfig)
class DeepLabHead(SemanticHead):
    """DeepLabv3 or DeepLabv3+; logits have the resolution of the deepest level, or of the low-level feature."""

    config: DeepLabConfig
    class_rows: ClassVar = {"logits": ClassRows()}

    def __init__(
        self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: DeepLabConfig = DeepLabConfig()
    ) -> None:
        super().__init__(feature_info, num_classes, config)
        low = config.low_level
        require_levels("DeepLab", feature_info, [config.level] if low is None else [low.level, config.level])
        info, norm, channels = feature_info[config.level], norm_layer(config.norm), config.channels
        block = functools.partial(spatial_block, separable=config.separable, depthwise_norm=config.depthwise_norm)
        self.aspp = ASPP(info, config.rates_at(info.stride), channels, norm, block, config.project_kernel)
        self.dropout = nn.Dropout(config.dropout)
        self.aspp_convolution = block(channels, channels, norm) if config.aspp_convolution else nn.Identity()
        self.low_level = None
        if low is not None:
            self.low_level = conv_block(feature_info[low.level].channels, low.channels, 1, norm, "relu")
        widths = [channels + (0 if low is None else low.channels), *[channels] * config.decoder_convolutions]
        self.decoder = nn.Sequential(*(block(*pair, norm) for pair in itertools.pairwise(widths)))
        self.logits = nn.Conv2d(widths[-1], num_classes, 1)
        initialize(self)

    def forward(self, features: Features, images: Images) -> Float[Tensor, "b k _ _"]:
        hidden = self.aspp_convolution(self.dropout(self.aspp(features[self.config.level], images.sizes)))
        if self.low_level is not None and self.config.low_level is not None:
            low = self.low_level(features[self.config.low_level.level])
            rows, columns = low.shape[-2:]
            hidden = torch.cat([resize_maps(hidden, (rows, columns), self.config.align_corners), low], dim=1)
        return self.logits(self.decoder(hidden))
