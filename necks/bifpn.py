"""The weighted bi-directional pyramid of EfficientDet (1911.09070 section 3)."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..ops import ActivationKind, NormKind, NormLayer, activation_layer, conv_block, norm_layer
from ..structures import FeatureInfo, Features, PartConfig
from .base import NECKS, Neck
from .extra_levels import ExtraCount, ExtraKind, extra_levels
from .layers import halve, initialize, lateral_blocks, upsample_to
from .levels import InputLevels, choose_levels, pyramid_info

FUSION_EPS = 1e-4  # 1911.09070 section 3.3


class BiFPNConfig(PartConfig):
    """Defaults are those of EfficientDet-D0 (Table 1), which reads c3..c5."""

    name: str = "bifpn"
    channels: PositiveInt = 64
    repeats: PositiveInt = 3
    """How often the way down and up is gone; each time has its own weights."""
    levels: InputLevels | None = None
    """Levels to read, fine to coarse; None takes every ``c`` level."""
    extra: ExtraKind = "pool_from_input"
    """Made of the input, so that they are merged like the others."""
    extra_count: ExtraCount | None = None
    """None is one level by ``pool`` and two by any other way."""
    norm: NormKind = "batch"
    """What follows each convolution that is not depthwise. The momentum of batch norms is PyTorch's, not the 0.01 of
    the paper."""
    norm_eps: NonNegativeFloat = 1e-3
    activation: ActivationKind = "silu"
    """What comes before each convolution of a fused map."""


class Fusion(nn.Module):
    """Maps of one size, weighted, added and convolved (section 3.3, fast normalised fusion).

    The order (activation, depthwise 3x3, 1x1, norm) is that of the authors' release; the paper's text has the
    activation after the norm.
    """

    def __init__(self, count: int, channels: int, norm: NormLayer, activation: ActivationKind) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(count))
        self.activation = activation_layer(activation)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = conv_block(channels, channels, 1, norm)

    def forward(self, maps: Sequence[Float[Tensor, "b c h w"]]) -> Float[Tensor, "b c h w"]:
        weights = F.relu(self.weights)
        shares = (weights / (weights.sum() + FUSION_EPS)).unbind()
        first, *others = (share * feature for share, feature in zip(shares, maps, strict=True))
        return self.pointwise(self.depthwise(self.activation(sum(others, start=first))))


class BiFPNLayer(nn.Module):
    """Once down and once up (Figure 2d): a level's second fusion also sees what came in, past the first.

    The coarsest level has no first fusion and the finest no second: with one map there is nothing to fuse.
    """

    def __init__(self, levels: Sequence[str], channels: int, norm: NormLayer, activation: ActivationKind) -> None:
        super().__init__()
        self.down = nn.ModuleDict({level: Fusion(2, channels, norm, activation) for level in levels[:-1]})
        self.up = nn.ModuleDict(
            {level: Fusion(3 if level in self.down else 2, channels, norm, activation) for level in levels[1:]}
        )

    def forward(self, inputs: Features) -> Features:
        names = list(inputs)
        merged = {names[-1]: inputs[names[-1]]}
        for coarse, fine in pairwise(reversed(names)):
            merged[fine] = self.down[fine]([inputs[fine], upsample_to(merged[coarse], inputs[fine])])
        outputs = {names[0]: merged[names[0]]}
        for fine, coarse in pairwise(names):
            seen = [inputs[coarse], merged[coarse]] if coarse in self.down else [inputs[coarse]]
            outputs[coarse] = self.up[coarse]([*seen, halve(outputs[fine])])
        return outputs


@NECKS.register("bifpn", BiFPNConfig)
class BiFPN(Neck):
    """Levels merged downwards and upwards, several times, with learned weights. Sizes may be odd.

    Every input passes one 1x1 convolution; the authors' release gives each that is read twice a second one.
    """

    def __init__(self, feature_info: Mapping[str, FeatureInfo], config: BiFPNConfig = BiFPNConfig()) -> None:
        super().__init__()
        self.config = config
        self.levels = choose_levels("BiFPN", feature_info, config.levels)
        channels, norm = config.channels, norm_layer(config.norm, config.norm_eps)
        coarsest = feature_info[self.levels[-1]].channels
        self.lateral = lateral_blocks(feature_info, self.levels, channels, norm)
        self.extra = extra_levels(config.extra, config.extra_count, coarsest, channels, norm)
        finest, count = self.levels[0], len(self.levels) + self.extra.count
        self.feature_info = pyramid_info(finest, feature_info[finest].stride, channels, count)
        self.layers = nn.ModuleList(
            BiFPNLayer(list(self.feature_info), channels, norm, config.activation) for _ in range(config.repeats)
        )
        initialize(self)

    def forward(self, features: Features) -> Features:
        inputs = [convolution(features[level]) for level, convolution in self.lateral.items()]
        inputs += self.extra(features[self.levels[-1]], inputs[-1])
        pyramid = dict(zip(self.feature_info, inputs, strict=True))
        for layer in self.layers:
            pyramid = layer(pyramid)
        return pyramid
