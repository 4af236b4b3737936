"""The path aggregation network's pyramid (1803.01534 section 3.1)."""

from collections.abc import Mapping

from pydantic import PositiveInt
from torch import nn

from ..ops import ActivationKind, NormKind, conv_block, norm_layer
from ..structures import FeatureInfo, Features, PartConfig
from .base import NECKS, Neck
from .extra_levels import ExtraCount, ExtraKind, extra_levels
from .fpn import FPN, FPNConfig
from .layers import initialize
from .levels import InputLevels, pyramid_info


class PAFPNConfig(PartConfig):
    """Defaults are the paper's."""

    name: str = "pafpn"
    channels: PositiveInt = 256
    levels: InputLevels | None = None
    """Levels to read, fine to coarse; None takes every ``c`` level."""
    extra: ExtraKind = "pool"
    """Levels above the coarsest of the bottom-up path."""
    extra_count: ExtraCount | None = None
    """None is one level by ``pool`` and two by any other way."""
    norm: NormKind = "none"
    """What follows each convolution, those of the FPN below included, but those of the extra levels."""
    activation: ActivationKind = "relu"
    """What follows each convolution of the bottom-up path. mmdetection, and the authors' code without norm: none."""


@NECKS.register("pafpn", PAFPNConfig)
class PAFPN(Neck):
    """FPN, then a short way up again, so that fine detail reaches the coarse levels. Sizes may be odd."""

    def __init__(self, feature_info: Mapping[str, FeatureInfo], config: PAFPNConfig = PAFPNConfig()) -> None:
        super().__init__()
        self.config = config
        channels, norm, activation = config.channels, norm_layer(config.norm), config.activation
        self.fpn = FPN(feature_info, FPNConfig(channels=channels, levels=config.levels, extra="none", norm=config.norm))
        self.levels = self.fpn.levels
        self.down = nn.ModuleDict()
        self.output = nn.ModuleDict()
        for level in list(self.fpn.feature_info)[1:]:
            self.down[level] = conv_block(channels, channels, 3, norm, activation, stride=2)
            self.output[level] = conv_block(channels, channels, 3, norm, activation)
        self.extra = extra_levels(config.extra, config.extra_count, feature_info[self.levels[-1]].channels, channels)
        finest, count = self.levels[0], len(self.levels) + self.extra.count
        self.feature_info = pyramid_info(finest, feature_info[finest].stride, channels, count)
        initialize(self)

    def forward(self, features: Features) -> Features:
        finest, *coarser = self.fpn(features).values()
        outputs = [finest]
        for level, down, output in zip(coarser, self.down.values(), self.output.values(), strict=True):
            outputs.append(output(level + down(outputs[-1])))
        outputs += self.extra(features[self.levels[-1]], outputs[-1])
        return dict(zip(self.feature_info, outputs, strict=True))
