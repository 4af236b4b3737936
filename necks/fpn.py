"""The feature pyramid network, FPN (1612.03144)."""

from collections.abc import Mapping
from itertools import accumulate

from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from ..ops import ActivationKind, NormKind, conv_block, norm_layer
from ..structures import FeatureInfo, Features, PartConfig
from .base import NECKS, Neck
from .extra_levels import ExtraCount, ExtraMethod, extra_levels
from .layers import initialize, lateral_blocks, upsample_to
from .levels import InputLevels, choose_levels, pyramid_info


class FPNConfig(PartConfig):
    """The options of an FPN. The defaults are those of the paper for R-CNN, as in torchvision and detectron2."""

    name: str = "fpn"
    channels: PositiveInt = 256
    levels: InputLevels | None = None
    """The levels to read, from fine to coarse. None: all ``c`` levels."""
    extra: ExtraMethod = "pool"
    """How extra coarser levels are computed: ``none``, ``pool``, ``conv``, ``conv_from_input`` or
    ``pool_from_input``."""
    extra_count: ExtraCount | None = None
    """The number of extra levels. None: one for ``pool``, two for the other methods."""
    extra_relu: bool = True
    """Apply a ReLU between the convolutions of extra levels, as torchvision and detectron2. MMDetection's RetinaNet:
    False."""
    output_convolutions: bool = True
    """Apply a 3x3 convolution to every merged level. segmentation_models_pytorch: False."""
    norm: NormKind = "none"
    """The norm after each convolution, except in the extra levels."""
    activation: ActivationKind = "none"
    """The activation after each norm. The paper has none."""


@NECKS.register("fpn", FPNConfig)
class FPN(Neck):
    """Feature pyramid network: a top-down path adds coarse features to finer ones. Image sizes may be odd.

    It computes p2..p5 from c2..c5, and the extra levels.
    """

    def __init__(self, feature_info: Mapping[str, FeatureInfo], config: FPNConfig = FPNConfig()) -> None:
        super().__init__()
        self.config = config
        self.levels = choose_levels("FPN", feature_info, config.levels)
        channels, coarsest = config.channels, feature_info[self.levels[-1]]
        norm, activation = norm_layer(config.norm), config.activation
        self.lateral = lateral_blocks(feature_info, self.levels, channels, norm, activation)
        self.output = nn.ModuleDict()
        self.extra = extra_levels(config.extra, config.extra_count, coarsest.channels, channels, relu=config.extra_relu)
        finest, count = self.levels[0], len(self.levels) + self.extra.count
        self.feature_info = pyramid_info(finest, feature_info[finest].stride, channels, count)
        for level in list(self.feature_info)[: len(self.levels)]:
            smooth = (
                conv_block(channels, channels, 3, norm, activation) if config.output_convolutions else nn.Identity()
            )
            self.output[level] = smooth
        initialize(self)

    def forward(self, features: Features) -> Features:
        laterals = [convolution(features[level]) for level, convolution in self.lateral.items()]
        merged = list(accumulate(reversed(laterals), _add_top_down))
        outputs = [
            convolution(level) for convolution, level in zip(self.output.values(), reversed(merged), strict=True)
        ]
        outputs += self.extra(features[self.levels[-1]], outputs[-1])
        return dict(zip(self.feature_info, outputs, strict=True))


def _add_top_down(coarse: Float[Tensor, "b c _ _"], lateral: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return lateral + upsample_to(coarse, lateral)
