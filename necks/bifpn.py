"""BiFPN, the weighted bi-directional feature pyramid of EfficientDet (1911.09070 section 3)."""

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
from .extra_levels import ExtraCount, ExtraMethod, extra_levels
from .layers import halve, initialize, lateral_blocks, upsample_to
from .levels import InputLevels, choose_levels, pyramid_info

FUSION_EPS = 1e-4  # 1911.09070 section 3.3


class BiFPNConfig(PartConfig):
    """The options of a BiFPN. The defaults are those of EfficientDet-D0 (1911.09070 Table 1), which reads c3..c5."""

    name: str = "bifpn"
    channels: PositiveInt = 64
    repeats: PositiveInt = 3
    """The number of layers; each has a top-down and a bottom-up path with separate weights."""
    levels: InputLevels | None = None
    """The levels to read, from fine to coarse. None: all ``c`` levels."""
    extra: ExtraMethod = "pool_from_input"
    """How extra coarser levels are computed: ``none``, ``pool``, ``conv``, ``conv_from_input`` or ``pool_from_input``.
    They are merged like the other levels."""
    extra_count: ExtraCount | None = None
    """The number of extra levels. None: one for ``pool``, two for the other methods."""
    norm: NormKind = "batch"
    """The norm after each convolution that is not depthwise. Batch norms have PyTorch's momentum of 0.1 instead of the
    paper's 0.01."""
    norm_eps: NonNegativeFloat = 1e-3
    activation: ActivationKind = "silu"
    """The activation before each convolution of a fused map."""


class Fusion(nn.Module):
    """A weighted sum of maps of equal size, followed by a separable convolution.

    The weights use fast normalized fusion (1911.09070 section 3.3). The order activation, depthwise 3x3, 1x1, norm is
    that of the authors' code; in the paper's text the activation comes after the norm.
    """

    def __init__(self, count: int, channels: int, norm: NormLayer, activation: ActivationKind) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(count))
        self.activation = activation_layer(activation)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = conv_block(channels, channels, 1, norm)

    def forward(self, maps: Sequence[Float[Tensor, "b c h w"]]) -> Float[Tensor, "b c h w"]:
        weights = F.relu(self.weights)
        normalized = (weights / (weights.sum() + FUSION_EPS)).unbind()
        first, *rest = (weight * feature for weight, feature in zip(normalized, maps, strict=True))
        return self.pointwise(self.depthwise(self.activation(sum(rest, start=first))))


class BiFPNLayer(nn.Module):
    """One layer of a BiFPN: a top-down path of fusions, then a bottom-up path (1911.09070 Figure 2d).

    Fusions on the bottom-up path also get the layer's input of the same level. The coarsest level has no fusion on the
    top-down path, and the finest level none on the bottom-up path, since there is only one map.
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
            maps = [inputs[coarse], merged[coarse]] if coarse in self.down else [inputs[coarse]]
            outputs[coarse] = self.up[coarse]([*maps, halve(outputs[fine])])
        return outputs


@NECKS.register("bifpn", BiFPNConfig)
class BiFPN(Neck):
    """BiFPN: repeated top-down and bottom-up paths that merge levels with learned weights. Image sizes may be odd.

    Every input has one 1x1 convolution; in the authors' code inputs that are read twice have two.
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
