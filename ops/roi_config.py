"""The options of RoIAlign on a pyramid, and the level of each region (1612.03144 Eq. 1)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int64
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from ..structures import Config
from .boxes import box_areas


class RoIAlignConfig(Config):
    """Hyper-parameters of RoIAlign and of the choice of the pyramid level."""

    size: PositiveInt = 7
    """Bins per side of a pooled region."""
    sampling_ratio: NonNegativeInt = 0
    """Samples per bin and axis; 0 takes one per cell of the bin (detectron2). torchvision uses 2."""
    aligned: bool = True
    """Shift boxes by half a cell, so that feature values are at cell centers (detectron2; not torchvision's R-CNN)."""
    level_epsilon: Literal["inside", "outside"] = "inside"
    """Where the epsilon against rounding is added: inside the logarithm of the level (detectron2) or outside
    (torchvision)."""
    canonical_size: PositiveFloat = 224.0
    """A box whose area is the square of this number of pixels is pooled from ``canonical_level``."""
    canonical_level: int = 4
    """The base-2 logarithm of the stride of that level."""


def region_levels(boxes: Float[Tensor, "*n 4"], strides: Sequence[int], config: RoIAlignConfig) -> Int64[Tensor, "*n"]:
    """Return the index in ``strides`` of the level that each box is pooled from (1612.03144 Eq. 1).

    With the default config, a box of 224 x 224 px is pooled from the level of stride 16.
    """
    scale = box_areas(boxes).sqrt() / config.canonical_size
    if config.level_epsilon == "inside":
        level = (config.canonical_level + torch.log2(scale + 1e-8)).floor()
    else:
        level = (config.canonical_level + torch.log2(scale) + 1e-6).floor()
    lowest = round(math.log2(strides[0]))
    return (level.clamp(lowest, lowest + len(strides) - 1) - lowest).long()
