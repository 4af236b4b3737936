"""Box arithmetic. Boxes are xyxy in absolute pixels, continuous."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""A decoded side is at most 62.5 times its reference's (Detectron's bound against overflow of exp)."""


def box_areas(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Return the areas in square pixels; an inverted box has none."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def shorter_sides(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Return the shorter side of each box in pixels: negative of an inverted box, NaN where a coordinate is NaN."""
    return (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1)


def pairwise_intersection(first: Float[Tensor, "n 4"], second: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Return the overlap of every pair in square pixels."""
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = (bottom_right - top_left).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def pairwise_iou(first: Float[Tensor, "n 4"], second: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Return the intersection over union of every pair, from 0 to 1; it is 0 where both boxes are empty."""
    intersection = pairwise_intersection(first, second)
    union = box_areas(first)[:, None] + box_areas(second)[None] - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def encode_boxes(
    boxes: Float[Tensor, "*n 4"],
    references: Float[Tensor, "*n 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*n 4"]:
    """Return the offsets ``(dx, dy, dw, dh)`` from references to boxes, times the weights (1311.2524 Appendix C)."""
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
    """Return the boxes that :func:`encode_boxes` encoded; a side grows by at most ``exp(MAX_LOG_SCALE)``."""
    offsets = offsets / offsets.new_tensor(weights)
    reference_sizes = references[..., 2:] - references[..., :2]
    centers = references[..., :2] + 0.5 * reference_sizes + offsets[..., :2] * reference_sizes
    half_sizes = 0.5 * reference_sizes * offsets[..., 2:].clamp(max=MAX_LOG_SCALE).exp()
    return torch.cat([centers - half_sizes, centers + half_sizes], dim=-1)


def encode_distances(boxes: Float[Tensor, "*n 4"], points: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 4"]:
    """Return the distances (left, top, right, bottom) from points to the sides of boxes (1904.01355 Eq. 1).

    A distance is negative where the point is beyond that side.
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def decode_distances(distances: Float[Tensor, "*n 4"], points: Float[Tensor, "*#n 2"]) -> Float[Tensor, "*n 4"]:
    """Return the boxes that :func:`encode_distances` encoded."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def clip_boxes(boxes: Float[Tensor, "b *n 4"], sizes: Int64[Tensor, "b 2"]) -> Float[Tensor, "b *n 4"]:
    """Return the boxes clipped to their image, whose ``sizes`` are (height, width)."""
    limits = sizes.flip(1).repeat(1, 2).to(boxes.dtype)
    limits = limits.view(len(boxes), *[1] * (boxes.ndim - 2), 4)
    return torch.minimum(boxes.clamp(min=0), limits)
