"""Assignment: which object each reference of a head learns, and which references are drawn for a loss.

A reference is whatever a head predicts from: an anchor, a proposal, or the box of a query.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ..structures import Instances
from .boxes import box_areas, pairwise_intersection, pairwise_iou

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class Match(NamedTuple):
    """The label and the object that each reference of one image is assigned."""

    labels: Int64[Tensor, " n"]
    """``POSITIVE``, ``NEGATIVE`` or ``IGNORED``."""
    target_indices: Int64[Tensor, " n"]
    """The object that the reference overlaps most; 0 where there is no object."""


def assign_boxes(
    references: Float[Tensor, "n 4"],
    target: Instances,
    thresholds: tuple[float, float],
    *,
    keep_best: bool = False,
    ignore_coverage: float = 0.5,
) -> Match:
    """Assign the references of one image to its objects: :func:`match_boxes`, then :func:`ignore_regions`."""
    match = match_boxes(references, target.boxes, thresholds, keep_best)
    return match._replace(labels=ignore_regions(match.labels, references, target.ignored, ignore_coverage))


def match_boxes(
    references: Float[Tensor, "n 4"],
    boxes: Float[Tensor, "m 4"],
    thresholds: tuple[float, float],
    keep_best: bool = False,
) -> Match:
    """Match by IoU: positive from ``thresholds[1]`` up, negative below ``thresholds[0]``, ignored between.

    With ``keep_best`` every object also makes those references positive that overlap it most, however little, so that
    each object is learned (1506.01497 section 3.1.2 (i)). An object that overlaps no reference at all makes none
    positive; torchvision and detectron2 would then take every reference without overlap for it.
    """
    labels = torch.full((len(references),), NEGATIVE, dtype=torch.int64, device=references.device)
    if not len(boxes):
        return Match(labels, torch.zeros_like(labels))
    iou = pairwise_iou(boxes, references)
    overlap, target_indices = iou.max(dim=0)
    labels = torch.where(overlap >= thresholds[0], IGNORED, labels)
    positive = overlap >= thresholds[1]
    if keep_best:
        best = iou.amax(dim=1, keepdim=True)
        positive |= ((iou == best) & (best > 0)).any(dim=0)
    return Match(torch.where(positive, POSITIVE, labels), target_indices)


def ignore_regions(
    labels: Int64[Tensor, " n"],
    references: Float[Tensor, "n 4"],
    regions: Float[Tensor, "m 4"] | None,
    coverage: float,
) -> Int64[Tensor, " n"]:
    """Ignore each negative of which an ignore region, such as a crowd, covers at least this fraction of the area."""
    if regions is None or not len(regions):
        return labels
    covered = pairwise_intersection(references, regions).amax(dim=1)
    areas = box_areas(references)
    inside = (covered >= coverage * areas) & (areas > 0)
    return torch.where(inside & (labels == NEGATIVE), IGNORED, labels)


class Sample(NamedTuple):
    """A fixed number of references drawn for a loss, the positives first."""

    indices: Int64[Tensor, " s"]
    valid: Bool[Tensor, " s"]
    """False where no reference was left to draw; the row is padding then."""
    positive: Bool[Tensor, " s"]


def sample_labels(
    labels: Int64[Tensor, " n"], count: int, positive_fraction: float, keys: Float[Tensor, " n"]
) -> Sample:
    """Draw ``count`` references, those of the smallest ``keys``: positives up to a fraction of them, then negatives.

    The keys are random numbers below 1. The sample has ``min(count, n)`` rows whatever the labels are, and no value is
    read back from the device.
    """
    total = len(labels)
    max_positives = min(int(count * positive_fraction), total)
    count = min(count, total)
    candidates = [
        torch.where(labels == label, keys, 2.0).topk(size, largest=False).indices
        for label, size in ((POSITIVE, max_positives), (NEGATIVE, count))
    ]
    num_positives = (labels == POSITIVE).sum().clamp(max=max_positives)
    num_negatives = (labels == NEGATIVE).sum()
    row = torch.arange(count, device=labels.device)
    source = torch.where(row < num_positives, row, max_positives + row - num_positives)
    indices = torch.cat(candidates)[source]
    return Sample(indices, row < num_positives + num_negatives, row < num_positives)


def take_targets(
    rows: Shaped[Tensor, "m *d"], target_indices: Int64[Tensor, " n"], default: Shaped[Tensor, "n *d"]
) -> Shaped[Tensor, "n *d"]:
    """Return an object's row for each index, or ``default`` where the image has no objects."""
    return rows[target_indices] if len(rows) else default
