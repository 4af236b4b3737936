"""RoIAlign over a pyramid (1703.06870 section 3; choice of the level: 1612.03144 Eq. 1)."""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int64
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torchvision.ops import roi_align

from ..structures import Config
from .boxes import box_areas
from .device import allows_dynamic_shapes


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


def pool_regions(
    features: Sequence[Float[Tensor, "b c _ _"]],
    strides: Sequence[int],
    images: Int64[Tensor, " n"],
    boxes: Float[Tensor, "n 4"],
    config: RoIAlignConfig,
) -> Float[Tensor, "n c s s"]:
    """Pool the features of each box from the level of its size (:func:`region_levels`).

    ``images`` has the index of the image of each box.
    """
    levels = region_levels(boxes, strides, config)
    rois = torch.cat([images[:, None].to(boxes.dtype), boxes], dim=1)
    if allows_dynamic_shapes(boxes.device):
        return _pool_by_level(features, strides, rois, levels, config)
    # Every level pools all boxes; boxes of other levels are shrunk to points, which cost almost nothing.
    points = rois * (torch.arange(5, device=rois.device) == 0)
    pooled = []
    for index, (level, stride) in enumerate(zip(features, strides, strict=True)):
        on_level = levels == index
        regions = _pool(level, stride, torch.where(on_level[:, None], rois, points), config)
        # With a fixed sampling ratio even a point is sampled, so its value is not zero.
        pooled.append(torch.where(on_level[:, None, None, None], regions, 0))
    return functools.reduce(torch.add, pooled)


def _pool_by_level(
    features: Sequence[Float[Tensor, "b c _ _"]],
    strides: Sequence[int],
    rois: Float[Tensor, "n 5"],
    levels: Int64[Tensor, " n"],
    config: RoIAlignConfig,
) -> Float[Tensor, "n c s s"]:
    """Pool as :func:`pool_regions` does, passing to each level only its own boxes.

    A row of ``rois`` is (image index, x1, y1, x2, y2).
    """
    pooled, order = [], []
    for index, (level, stride) in enumerate(zip(features, strides, strict=True)):
        rows = (levels == index).nonzero()[:, 0]
        order.append(rows)
        pooled.append(_pool(level, stride, rois[rows], config))
    return torch.cat(pooled)[torch.cat(order).argsort()]


def _pool(
    level: Float[Tensor, "b c _ _"], stride: int, rois: Float[Tensor, "n 5"], config: RoIAlignConfig
) -> Float[Tensor, "n c s s"]:
    """Pool boxes from one level, in float32 or more.

    Half precision cannot represent coordinates beyond 256 to the pixel, and not every device supports it for RoIAlign.
    """
    dtype = torch.promote_types(level.dtype, torch.float32)
    scale, aligned = 1.0 / stride, config.aligned
    regions = roi_align(level.to(dtype), rois.to(dtype), config.size, scale, config.sampling_ratio, aligned=aligned)
    return regions.to(level.dtype)
