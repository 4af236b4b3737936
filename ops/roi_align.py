"""RoIAlign on a pyramid (1703.06870 section 3)."""

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import roi_align

from .device import allows_dynamic_shapes
from .roi_config import RoIAlignConfig, region_levels
from .roi_sums import pool_as_sums


def pool_regions(
    features: Sequence[Float[Tensor, "b c _ _"]],
    strides: Sequence[int],
    images: Int64[Tensor, " n"],
    boxes: Float[Tensor, "n 4"],
    config: RoIAlignConfig,
) -> Float[Tensor, "n c s s"]:
    """Pool the features of each box from the level that suits its size (:func:`region_levels`).

    ``images`` has the index of the image of each box.
    """
    levels = region_levels(boxes, strides, config)
    rois = torch.cat([images[:, None].to(boxes.dtype), boxes], dim=1)
    if allows_dynamic_shapes(boxes.device):
        return pool_as_sums(features, strides, rois, levels, config)
    # Every level pools all boxes. Those of other levels are shrunk to points, at which adaptive sampling reads nothing.
    points = rois * (torch.arange(5, device=rois.device) == 0)
    pooled = []
    for index, (level, stride) in enumerate(zip(features, strides, strict=True)):
        on_level = levels == index
        regions = _pool(level, stride, torch.where(on_level[:, None], rois, points), config)
        # With a fixed sampling ratio even a point is sampled, so its value is not zero.
        pooled.append(torch.where(on_level[:, None, None, None], regions, 0))
    return functools.reduce(torch.add, pooled)


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
