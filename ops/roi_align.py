"""RoIAlign over a pyramid (1703.06870 section 3, level choice 1612.03144 Eq. 1)."""

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


class RoIAlignConfig(Config):
    """How regions are cut out of feature maps."""

    size: int = 7
    sampling_ratio: int = 0
    """Samples per bin and axis; 0 takes as many as the bin has cells (detectron2). torchvision takes 2."""
    aligned: bool = True
    """Shift by half a cell, so that a pixel's value stands at its centre (detectron2). torchvision's R-CNN does not."""
    level_epsilon: Literal["inside", "outside"] = "inside"
    """Where the guard against rounding stands in the level's logarithm: detectron2 inside, torchvision outside."""
    canonical_size: float = 224.0
    canonical_level: int = 4


def region_levels(boxes: Float[Tensor, "*n 4"], strides: Sequence[int], config: RoIAlignConfig) -> Int64[Tensor, "*n"]:
    """The index of the pyramid level that each box is read from: a box of 224 px from level 4 (stride 16)."""
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
    """A feature map of a fixed size for every box, from the level that fits the box; image by image in one batch."""
    batch, count = boxes.shape[:2]
    levels = region_levels(boxes, strides, config).flatten()
    images = torch.arange(batch, device=boxes.device, dtype=boxes.dtype).repeat_interleave(count)
    rois = torch.cat([images[:, None], boxes.flatten(0, 1)], dim=1)
    if _may_count(boxes.device):
        return _pool_by_level(features, strides, rois, levels, config)
    # Every level sees all boxes, and those of other levels as points, which cost next to nothing.
    elsewhere = rois[:, :1].expand(-1, 5) * rois.new_tensor([1, 0, 0, 0, 0])
    pooled = []
    for index, (level, stride) in enumerate(zip(features, strides, strict=True)):
        here = levels == index
        regions = _pool(level, stride, torch.where(here[:, None], rois, elsewhere), config)
        pooled.append(torch.where(here[:, None, None, None], regions, 0))  # with fixed sampling a point has samples too
    return functools.reduce(torch.add, pooled)


def _may_count(device: torch.device) -> bool:
    """Whether to ask how many boxes a level has: a CPU knows, a GPU would be waited for, a compiler cannot know."""
    return device.type == "cpu" and not torch.compiler.is_compiling()


def _pool_by_level(
    features: Sequence[Float[Tensor, "b c _ _"]],
    strides: Sequence[int],
    rois: Float[Tensor, "n 5"],
    levels: Int64[Tensor, " n"],
    config: RoIAlignConfig,
) -> Float[Tensor, "n c s s"]:
    """The same, each level with its own boxes only."""
    pooled = features[0].new_zeros(len(rois), features[0].shape[1], config.size, config.size)
    for index, (level, stride) in enumerate(zip(features, strides, strict=True)):
        own = (levels == index).nonzero()[:, 0]
        pooled = pooled.index_copy(0, own, _pool(level, stride, rois[own], config))
    return pooled


def _pool(
    level: Float[Tensor, "b c _ _"], stride: int, rois: Float[Tensor, "n 5"], config: RoIAlignConfig
) -> Float[Tensor, "n c s s"]:
    """RoIAlign on one level, in float32 at least: half precision cannot hold a coordinate beyond 256 to the pixel, nor
    does every device pool in it."""
    exact = torch.promote_types(level.dtype, torch.float32)
    scale, aligned = 1.0 / stride, config.aligned
    regions = roi_align(level.to(exact), rois.to(exact), config.size, scale, config.sampling_ratio, aligned=aligned)
    return regions.to(level.dtype)
