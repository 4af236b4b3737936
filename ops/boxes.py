"""Box arithmetic: xyxy, absolute pixels, continuous."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""A decoded box is at most 62.5 times its reference (Detectron's bound against overflow of exp)."""


def box_areas(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Areas in square pixels; an inverted box has none."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def pairwise_intersection(first: Float[Tensor, "n 4"], second: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Overlap area of every pair, in square pixels."""
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = (bottom_right - top_left).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def pairwise_iou(first: Float[Tensor, "n 4"], second: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every pair, 0..1; 0 where both boxes are empty."""
    intersection = pairwise_intersection(first, second)
    union = box_areas(first)[:, None] + box_areas(second)[None] - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def encode_boxes(
    boxes: Float[Tensor, "*n 4"],
    references: Float[Tensor, "*n 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*n 4"]:
    """Offsets ``(dx, dy, dw, dh)`` from reference boxes to boxes, each times its weight (1311.2524 Appendix C)."""
    # Padding of fixed-size batches has empty references: their offsets are finite and carry no loss.
    smallest = torch.finfo(boxes.dtype).eps
    sizes = (boxes[..., 2:] - boxes[..., :2]).clamp(min=smallest)
    reference_sizes = (references[..., 2:] - references[..., :2]).clamp(min=smallest)
    centers = boxes[..., :2] + 0.5 * sizes
    reference_centers = references[..., :2] + 0.5 * reference_sizes
    offsets = torch.cat([(centers - reference_centers) / reference_sizes, (sizes / reference_sizes).log()], dim=-1)
    return offsets * offsets.new_tensor(weights)


def decode_boxes(
    offsets: Float[Tensor, "*n 4"],
    references: Float[Tensor, "*#n 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*n 4"]:
    """The inverse of :func:`encode_boxes`, with the growth of a side bounded by ``MAX_LOG_SCALE``."""
    offsets = offsets / offsets.new_tensor(weights)
    reference_sizes = references[..., 2:] - references[..., :2]
    centers = references[..., :2] + 0.5 * reference_sizes + offsets[..., :2] * reference_sizes
    half_sizes = 0.5 * reference_sizes * offsets[..., 2:].clamp(max=MAX_LOG_SCALE).exp()
    return torch.cat([centers - half_sizes, centers + half_sizes], dim=-1)


def clip_boxes(boxes: Float[Tensor, "b *n 4"], sizes: Int64[Tensor, "b 2"]) -> Float[Tensor, "b *n 4"]:
    """Boxes cut to their image, whose ``sizes`` are (height, width)."""
    limits = sizes.flip(1).repeat(1, 2).to(boxes.dtype)
    limits = limits.view(len(boxes), *[1] * (boxes.ndim - 2), 4)
    return torch.minimum(boxes.clamp(min=0), limits)
