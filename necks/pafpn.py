"""PAFPN, the feature pyramid of the path aggregation network PANet (1803.01534 section 3.1)."""

from collections.abc import Mapping

from pydantic import PositiveInt
from torch import nn

from ..ops import ActivationKind, NormKind, conv_block, norm_layer
from ..structures import FeatureInfo, Features, PartConfig
from .base import NECKS, Neck
from .extra_levels import ExtraCount, ExtraMethod, extra_levels
from .fpn import FPN, FPNConfig
from .layers import initialize
from .levels import InputLevels, pyramid_info


class PAFPNConfig(PartConfig):
    """The options of a PAFPN. The defaults are those of the paper."""

    name: str = "pafpn"
    channels: PositiveInt = 256
    levels: InputLevels | None = None
    """The levels to read, from fine to coarse. None: all ``c`` levels."""
    extra: ExtraMethod = "pool"
    """How extra coarser levels are computed: ``none``, ``pool``, ``conv``, ``conv_from_input`` or
    ``pool_from_input``."""
    extra_count: ExtraCount | None = None
    """The number of extra levels. None: one for ``pool``, two for the other methods."""
    norm: NormKind = "none"
    """The norm after each convolution, including the FPN's, except in the extra levels."""
    activation: ActivationKind = "relu"
    """The activation after each convolution of the bottom-up path. mmdetection, and the authors' code without norms,
    have no activation."""


@NECKS.register("pafpn", PAFPNConfig)
class PAFPN(Neck):
    """PAFPN: an FPN followed by a bottom-up path, which brings fine detail to coarse levels. Image sizes may be odd."""

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
