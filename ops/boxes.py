"""Box arithmetic. Boxes are xyxy in absolute pixels, continuous."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""Upper bound of ``dw`` and ``dh`` in decoding, which keeps exp from overflowing: a box is at most 62.5 times as large
as its reference (as in Detectron)."""

MAX_LOG_STRIDES = 10.0
"""Upper bound of ``log w`` and ``log h`` in :func:`decode_centers`, which keeps exp from overflowing: a side is at most
22,026 strides long."""


def box_areas(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Return the areas of boxes in square pixels; 0 for an inverted box."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def shorter_sides(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Return the shorter side of each box in pixels: negative for an inverted box, NaN if a coordinate is NaN."""
    return (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1)


def pairwise_intersection(first: Float[Tensor, "*#b n 4"], second: Float[Tensor, "*#b m 4"]) -> Float[Tensor, "*b n m"]:
    """Return the intersection area of every pair of boxes in square pixels."""
    left, top, right, bottom = (coordinate[..., None] for coordinate in first.unbind(dim=-1))
    others = (coordinate[..., None, :].contiguous() for coordinate in second.unbind(dim=-1))
    other_left, other_top, other_right, other_bottom = others
    widths = (torch.minimum(right, other_right) - torch.maximum(left, other_left)).clamp(min=0)
    heights = (torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)).clamp(min=0)
    return widths * heights


def pairwise_iou(first: Float[Tensor, "*#b n 4"], second: Float[Tensor, "*#b m 4"]) -> Float[Tensor, "*b n m"]:
    """Return the intersection over union of every pair of boxes, 0..1; 0 if both boxes are empty."""
    intersection = pairwise_intersection(first, second)
    union = box_areas(first)[..., None] + box_areas(second)[..., None, :] - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def paired_iou(first: Float[Tensor, "*n 4"], second: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Return the intersection over union of corresponding boxes, from 0 to 1; it is 0 if both boxes are empty."""
    top_left, bottom_right = (
        torch.maximum(first[..., :2], second[..., :2]),
        torch.minimum(first[..., 2:], second[..., 2:]),
    )
    sides = (bottom_right - top_left).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    union = box_areas(first) + box_areas(second) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def paired_giou(first: Float[Tensor, "*n 4"], second: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Return the generalized IoU of corresponding boxes, from -1 to 1 (1902.09630 Algorithm 1).

    Where IoU is 0, it measures how far apart the boxes are. Unlike torchvision's ``generalized_box_iou_loss``, this
    reads nothing from the device.
    """
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    overlaps = (sides > 0).all(dim=-1)
    intersection = torch.where(overlaps, sides.prod(dim=-1), 0)
    areas, other_areas = ((boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (first, second))
    union, hull_area, epsilon = areas + other_areas - intersection, hull.prod(dim=-1), 1e-7
    return intersection / (union + epsilon) - (hull_area - union) / (hull_area + epsilon)


def encode_boxes(
    boxes: Float[Tensor, "*n 4"],
    references: Float[Tensor, "*#n 4"],
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Tensor, "*n 4"]:
    """Return the offsets ``(dx, dy, dw, dh)`` from references to boxes, times the weights (1311.2524 Appendix C)."""
    # Padding rows of fixed-size batches are empty boxes: the clamp keeps their offsets finite, and no loss uses them.
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
    """Undo :func:`encode_boxes`: return the boxes for offsets; a side grows by at most ``exp(MAX_LOG_SCALE)``."""
    offsets = offsets / offsets.new_tensor(weights)
    reference_sizes = references[..., 2:] - references[..., :2]
    centers = references[..., :2] + 0.5 * reference_sizes + offsets[..., :2] * reference_sizes
    half_sizes = 0.5 * reference_sizes * offsets[..., 2:].clamp(max=MAX_LOG_SCALE).exp()
    return torch.cat([centers - half_sizes, centers + half_sizes], dim=-1)


def encode_distances(boxes: Float[Tensor, "*#n 4"], points: Float[Tensor, "*#n 2"]) -> Float[Tensor, "*n 4"]:
    """Return the distances (left, top, right, bottom) from points to the sides of boxes (1904.01355 Eq. 1).

    A distance is negative if the point lies outside the box on that side.
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def decode_distances(distances: Float[Tensor, "*n 4"], points: Float[Tensor, "*#n 2"]) -> Float[Tensor, "*n 4"]:
    """Undo :func:`encode_distances`: return the boxes for distances from points."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def encode_centers(
    boxes: Float[Tensor, "*#n 4"], points: Float[Tensor, "*#n 2"], strides: Float[Tensor, "*#n 1"]
) -> Float[Tensor, "*n 4"]:
    """Encode boxes as ``(dx, dy, log w, log h)``: center relative to a point, and sides, all in strides (YOLOX)."""
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=torch.finfo(boxes.dtype).eps)
    return torch.cat([(centers - points) / strides, (sides / strides).log()], dim=-1)


def decode_centers(
    offsets: Float[Tensor, "*n 4"], points: Float[Tensor, "*#n 2"], strides: Float[Tensor, "*#n 1"]
) -> Float[Tensor, "*n 4"]:
    """Decode boxes that :func:`encode_centers` encoded; a side has at most ``exp(MAX_LOG_STRIDES)`` strides."""
    centers = points + offsets[..., :2] * strides
    half_sides = offsets[..., 2:].clamp(max=MAX_LOG_STRIDES).exp() * strides / 2
    return torch.cat([centers - half_sides, centers + half_sides], dim=-1)


def clip_boxes(boxes: Float[Tensor, "b *n 4"], sizes: Int64[Tensor, "b 2"]) -> Float[Tensor, "b *n 4"]:
    """Clip the boxes of each image to its (height, width), given in ``sizes``."""
    limits = sizes.flip(1).repeat(1, 2).to(boxes.dtype)
    limits = limits.view(len(boxes), *[1] * (boxes.ndim - 2), 4)
    return torch.minimum(boxes.clamp(min=0), limits)
