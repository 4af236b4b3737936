"""RoIAlign over a pyramid (1703.06870 section 3; the level of a box: 1612.03144 Eq. 1)."""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import roi_align

from ..structures import Config
from .boxes import box_areas
from .device import can_count


class RoIAlignConfig(Config):
    """How the features of regions are pooled."""

    size: int = 7
    """Bins per side of a pooled region."""
    sampling_ratio: int = 0
    """Samples per bin and axis; 0 takes as many as the bin has cells (detectron2). torchvision takes 2."""
    aligned: bool = True
    """Shift by half a cell, so that a pixel's value stands at its centre (detectron2). torchvision's R-CNN does not."""
    level_epsilon: Literal["inside", "outside"] = "inside"
    """Where the guard against rounding stands in the level's logarithm: detectron2 inside, torchvision outside."""
    canonical_size: float = 224.0
    """A box of this side, in pixels, is pooled from ``canonical_level``."""
    canonical_level: int = 4


def region_levels(boxes: Float[Tensor, "*n 4"], strides: Sequence[int], config: RoIAlignConfig) -> Int64[Tensor, "*n"]:
    """Return the index of the level that each box is pooled from: a box of 224 px from level 4, of stride 16."""
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
    boxes: Float[Tensor, "b r 4"],
    config: RoIAlignConfig,
) -> Float[Tensor, "br c s s"]:
    """Pool each box from the level that fits it, into one batch that goes image by image."""
    batch, count = boxes.shape[:2]
    levels = region_levels(boxes, strides, config).flatten()
    images = torch.arange(batch, device=boxes.device, dtype=boxes.dtype).repeat_interleave(count)
    rois = torch.cat([images[:, None], boxes.flatten(0, 1)], dim=1)
    if can_count(boxes.device):
        return _pool_by_level(features, strides, rois, levels, config)
    # Every level sees all boxes; those of other levels are points there, which cost next to nothing.
    points = rois[:, :1].expand(-1, 5) * rois.new_tensor([1, 0, 0, 0, 0])
    pooled = []
    for index, (level, stride) in enumerate(zip(features, strides, strict=True)):
        on_level = levels == index
        regions = _pool(level, stride, torch.where(on_level[:, None], rois, points), config)
        # With a fixed sampling ratio a point has samples too, so its value is not zero.
        pooled.append(torch.where(on_level[:, None, None, None], regions, 0))
    return functools.reduce(torch.add, pooled)


def _pool_by_level(
    features: Sequence[Float[Tensor, "b c _ _"]],
    strides: Sequence[int],
    rois: Float[Tensor, "n 5"],
    levels: Int64[Tensor, " n"],
    config: RoIAlignConfig,
) -> Float[Tensor, "n c s s"]:
    """Pool as :func:`pool_regions` does, giving each level its own boxes only."""
    pooled = features[0].new_zeros(len(rois), features[0].shape[1], config.size, config.size)
    for index, (level, stride) in enumerate(zip(features, strides, strict=True)):
        rows = (levels == index).nonzero()[:, 0]
        pooled = pooled.index_copy(0, rows, _pool(level, stride, rois[rows], config))
    return pooled


def _pool(
    level: Float[Tensor, "b c _ _"], stride: int, rois: Float[Tensor, "n 5"], config: RoIAlignConfig
) -> Float[Tensor, "n c s s"]:
    """Pool boxes from one level, computing in float32 at least.

    Half precision cannot hold a coordinate beyond 256 to the pixel, nor does every device pool in it.
    """
    exact = torch.promote_types(level.dtype, torch.float32)
    scale, aligned = 1.0 / stride, config.aligned
    regions = roi_align(level.to(exact), rois.to(exact), config.size, scale, config.sampling_ratio, aligned=aligned)
    return regions.to(level.dtype)
