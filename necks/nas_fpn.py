"""NAS-FPN, a feature pyramid found by architecture search (1904.07392)."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from ..ops import ActivationKind, NormKind, NormLayer, activation_layer, conv_block, norm_layer
from ..structures import FeatureInfo, Features, PartConfig
from .base import NECKS, Neck
from .layers import initialize, lateral_blocks
from .levels import InputLevels, choose_levels, pyramid_info


class Cell(NamedTuple):
    """A merging cell: it resizes two maps to the level of ``output``, merges them and applies a convolution.

    The digit in the name of a map is its level. ``residual`` is an input of the layer that no other cell reads; it is
    added before the convolution.
    """

    output: str
    merge: Literal["sum", "attend"]
    coarse: str
    fine: str
    residual: str | None = None


CELLS = (
    Cell("a4", "attend", "p6", "p4"),
    Cell("b4", "sum", "a4", "p4"),
    Cell("n3", "sum", "b4", "p3"),
    Cell("n4", "sum", "b4", "n3"),
    Cell("n5", "attend", "n4", "n3", residual="p5"),
    Cell("n7", "attend", "n5", "b4", residual="p7"),
    Cell("n6", "attend", "n7", "n5"),
)
"""The 7 cells of 1904.07392 Figure 6, from inputs p3..p7 to outputs n3..n7, as in the authors' code (tensorflow/tpu,
detection/modeling/architecture/nasfpn.py)."""

LEVEL_NUMBERS = ("3", "4", "5", "6", "7")
"""The levels in the names of the cells' maps. If the finest input is not level 3, it still takes the place of p3."""


class NASFPNConfig(PartConfig):
    """The options of a NAS-FPN. The defaults are the authors' code (7 @ 256 in the paper), which reads c3..c5."""

    name: str = "nas_fpn"
    channels: PositiveInt = 256
    repeats: PositiveInt = 7
    """The number of layers; each has all cells, with separate weights."""
    levels: InputLevels | None = None
    """The levels to read, from fine to coarse, at most five; missing coarse levels are max-pooled. None: all ``c``
    levels."""
    norm: NormKind = "batch"
    """The norm after each convolution."""
    norm_eps: NonNegativeFloat = 1e-4
    activation: ActivationKind = "relu"
    """The activation before each convolution of a merged map."""


class NASFPNLayer(nn.Module):
    """One layer of a NAS-FPN, which applies each of ``CELLS`` once."""

    def __init__(self, channels: int, norm: NormLayer, activation: ActivationKind) -> None:
        super().__init__()
        self.cells = nn.ModuleDict(
            {
                cell.output: nn.Sequential(activation_layer(activation), conv_block(channels, channels, 3, norm))
                for cell in CELLS
            }
        )

    def forward(self, pyramid: list[Float[Tensor, "b c _ _"]]) -> list[Float[Tensor, "b c _ _"]]:
        maps = {f"p{number}": level for number, level in zip(LEVEL_NUMBERS, pyramid, strict=True)}
        for cell, convolution in zip(CELLS, self.cells.values(), strict=True):
            coarse, fine = (_resize(maps, name, cell.output[-1]) for name in (cell.coarse, cell.fine))
            merged = _attend(coarse, fine) if cell.merge == "attend" else coarse + fine
            if cell.residual is not None:
                merged = merged + maps[cell.residual]
            maps[cell.output] = convolution(merged)
        return [maps[f"n{number}"] for number in LEVEL_NUMBERS]


@NECKS.register("nas_fpn", NASFPNConfig)
class NASFPN(Neck):
    """NAS-FPN: repeated merging of five levels along paths found by architecture search. Image sizes may be odd.

    As in the authors' code, missing coarse levels are max-pooled from the coarsest input after its lateral 1x1
    convolution. The paper pools the input itself; mmdetection applies a convolution before each pooling.
    """

    def __init__(self, feature_info: Mapping[str, FeatureInfo], config: NASFPNConfig = NASFPNConfig()) -> None:
        super().__init__()
        self.config = config
        self.levels = choose_levels("NASFPN", feature_info, config.levels)
        if len(self.levels) > len(LEVEL_NUMBERS):
            raise ValueError(
                f"NASFPN merges {len(LEVEL_NUMBERS)} levels; got {self.levels}: choose at most five in `levels`"
            )
        channels, norm = config.channels, norm_layer(config.norm, config.norm_eps)
        self.lateral = lateral_blocks(feature_info, self.levels, channels, norm)
        self.layers = nn.ModuleList(NASFPNLayer(channels, norm, config.activation) for _ in range(config.repeats))
        finest = self.levels[0]
        self.feature_info = pyramid_info(finest, feature_info[finest].stride, channels, len(LEVEL_NUMBERS))
        initialize(self)

    def forward(self, features: Features) -> Features:
        pyramid = [convolution(features[level]) for level, convolution in self.lateral.items()]
        while len(pyramid) < len(LEVEL_NUMBERS):
            pyramid.append(_pool(pyramid[-1], 2))
        for layer in self.layers:
            pyramid = layer(pyramid)
        return dict(zip(self.feature_info, pyramid, strict=True))


def _attend(coarse: Float[Tensor, "b c h w"], fine: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return ``coarse + gate * fine``, with gate = sigmoid(max over the coarse map) per channel (1904.07392 Figure 3).

    This is the authors' code; mmdetection computes the gate from the mean of the fine map, and gates the coarse map.
    """
    return coarse + fine * coarse.amax(dim=(-2, -1), keepdim=True).sigmoid()


def _resize(maps: Mapping[str, Float[Tensor, "b c _ _"]], name: str, number: str) -> Float[Tensor, "b c _ _"]:
    """Resize the map ``name`` to level ``number``, by nearest neighbor if that is finer, by max pooling if coarser."""
    steps_finer = int(name[-1]) - int(number)
    if steps_finer > 0:
        height, width = maps[f"p{number}"].shape[-2:]
        return F.interpolate(maps[name], scale_factor=2.0**steps_finer, mode="nearest")[..., :height, :width]
    return _pool(maps[name], 2**-steps_finer) if steps_finer < 0 else maps[name]


def _pool(fine: Float[Tensor, "b c _ _"], factor: int) -> Float[Tensor, "b c _ _"]:
    """Reduce a map to ceil(size / factor) by ``factor`` x ``factor`` max pooling."""
    return F.max_pool2d(fine, factor, stride=factor, ceil_mode=True)
