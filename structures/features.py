"""The pyramid: named feature maps, fine to coarse, and what each promises."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Features = dict[str, Float[Tensor, "b _ _ _"]]
"""Feature maps by level name, fine to coarse: ``c2..c5`` out of a backbone, ``p2..p7`` out of a neck."""


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """What a pyramid level promises."""

    channels: int
    stride: int  # input pixels per cell
