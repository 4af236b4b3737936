"""The pyramid that a search found (1904.07392)."""

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
    """One merging cell. The digit of a map's name is its level; ``residual`` is added where a level came in unused."""

    makes: str
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
"""The 7-cell architecture of Figure 6: p3..p7 come in, n3..n7 go out. From the table in the authors' release
(tensorflow/tpu, detection/modeling/architecture/nasfpn.py)."""

STEPS = ("3", "4", "5", "6", "7")
"""The paper's levels. Other pyramids put their own finest five in their place."""


class NASFPNConfig(PartConfig):
    """Defaults are those of the authors' release, which reads c3..c5: the paper's 7 @ 256."""

    name: str = "nas_fpn"
    channels: PositiveInt = 256
    repeats: PositiveInt = 7
    """How often the cells are gone through; each time has its own weights."""
    levels: InputLevels | None = None
    """Levels to read, fine to coarse, at most five; None takes every ``c`` level. The missing ones are pooled."""
    norm: NormKind = "batch"
    """What follows each convolution."""
    norm_eps: NonNegativeFloat = 1e-4
    activation: ActivationKind = "relu"
    """What comes before each convolution of a merged map."""


class NASFPNLayer(nn.Module):
    """All cells once."""

    def __init__(self, channels: int, norm: NormLayer, activation: ActivationKind) -> None:
        super().__init__()
        self.cells = nn.ModuleDict(
            {
                cell.makes: nn.Sequential(activation_layer(activation), conv_block(channels, channels, 3, norm))
                for cell in CELLS
            }
        )

    def forward(self, pyramid: list[Float[Tensor, "b c _ _"]]) -> list[Float[Tensor, "b c _ _"]]:
        maps = {f"p{step}": level for step, level in zip(STEPS, pyramid, strict=True)}
        for cell, convolution in zip(CELLS, self.cells.values(), strict=True):
            coarse, fine = (_resize(maps, name, cell.makes[-1]) for name in (cell.coarse, cell.fine))
            merged = _attend(coarse, fine) if cell.merge == "attend" else coarse + fine
            if cell.residual is not None:
                merged = merged + maps[cell.residual]
            maps[cell.makes] = convolution(merged)
        return [maps[f"n{step}"] for step in STEPS]


@NECKS.register("nas_fpn", NASFPNConfig)
class NASFPN(Neck):
    """Five levels merged along the paths that a search found. Sizes may be odd.

    As in the authors' release, levels above the coarsest input are max-pooled from its 1x1 convolution; the paper
    pools the input itself, mmdetection convolves before each pooling.
    """

    def __init__(self, feature_info: Mapping[str, FeatureInfo], config: NASFPNConfig = NASFPNConfig()) -> None:
        super().__init__()
        self.config = config
        self.levels = choose_levels("NASFPN", feature_info, config.levels)
        if len(self.levels) > len(STEPS):
            raise ValueError(f"NASFPN merges {len(STEPS)} levels; got {self.levels}: name at most so many in `levels`")
        channels, norm = config.channels, norm_layer(config.norm, config.norm_eps)
        self.lateral = lateral_blocks(feature_info, self.levels, channels, norm)
        self.layers = nn.ModuleList(NASFPNLayer(channels, norm, config.activation) for _ in range(config.repeats))
        finest = self.levels[0]
        self.feature_info = pyramid_info(finest, feature_info[finest].stride, channels, len(STEPS))
        initialize(self)

    def forward(self, features: Features) -> Features:
        pyramid = [convolution(features[level]) for level, convolution in self.lateral.items()]
        while len(pyramid) < len(STEPS):
            pyramid.append(_pool(pyramid[-1], 2))
        for layer in self.layers:
            pyramid = layer(pyramid)
        return dict(zip(self.feature_info, pyramid, strict=True))


def _attend(coarse: Float[Tensor, "b c h w"], fine: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The fine map added channel by channel, as much as the strongest response of the coarse one says (Figure 3).

    Max pooling and the coarse map as the guide are the authors' release; mmdetection takes the mean of the fine map
    and weights the coarse one.
    """
    return coarse + fine * coarse.amax(dim=(-2, -1), keepdim=True).sigmoid()


def _resize(maps: Mapping[str, Float[Tensor, "b c _ _"]], name: str, step: str) -> Float[Tensor, "b c _ _"]:
    """A map at another level: nearest neighbour to a finer one, max pooling to a coarser."""
    finer = int(name[-1]) - int(step)
    if finer > 0:
        height, width = maps[f"p{step}"].shape[-2:]
        return F.interpolate(maps[name], scale_factor=2.0**finer, mode="nearest")[..., :height, :width]
    return _pool(maps[name], 2**-finer) if finer < 0 else maps[name]


def _pool(fine: Float[Tensor, "b c _ _"], factor: int) -> Float[Tensor, "b c _ _"]:
    """The largest of every factor x factor cells: ceil(size / factor)."""
    return F.max_pool2d(fine, factor, stride=factor, ceil_mode=True)
