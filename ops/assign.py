"""Assignment of ground-truth objects to the references of a head, and sampling of references for a loss.

A reference is what a head predicts from: an anchor, a point, a proposal, or the box of a query.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ..structures import Instances
from .boxes import box_areas, encode_distances, pairwise_intersection, pairwise_iou

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class Match(NamedTuple):
    """The assignment of each reference of one image: whether it is positive, and its object."""

    labels: Int64[Tensor, " n"]
    """``POSITIVE``, ``NEGATIVE`` or ``IGNORED``."""
    target_indices: Int64[Tensor, " n"]
    """The index of the object that the reference fits best; 0 if the image has no objects."""


def assign_boxes(
    references: Float[Tensor, "n 4"],
    target: Instances,
    thresholds: tuple[float, float],
    *,
    keep_best: bool = False,
    ignore_coverage: float = 0.5,
) -> Match:
    """Assign the objects of one image to references: :func:`match_boxes`, then :func:`ignore_regions`.

    ``ignore_coverage`` is the fraction of a reference's area that an ignore region must cover.
    """
    match = match_boxes(references, target.boxes, thresholds, keep_best)
    return match._replace(labels=ignore_regions(match.labels, references, target.ignored, ignore_coverage))


def match_boxes(
    references: Float[Tensor, "n 4"],
    boxes: Float[Tensor, "m 4"],
    thresholds: tuple[float, float],
    keep_best: bool = False,
) -> Match:
    """Match references to objects by IoU.

    A reference is positive if its highest IoU is at least ``thresholds[1]``, negative if it is below ``thresholds[0]``,
    and ignored otherwise. With ``keep_best``, the references with the highest IoU for each object are positive as well,
    however low that IoU is, so that every object has a positive reference (1506.01497 section 3.1.2 (i)). An object
    that overlaps no reference gets none; torchvision and detectron2 would match it to all references with an IoU of 0.
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


def match_points(
    points: Float[Tensor, "n 2"],
    boxes: Float[Tensor, "m 4"],
    strides: Float[Tensor, " n"],
    ranges: Float[Tensor, "n 2"],
    radius: float | None,
) -> Match:
    """Match points to the objects that they lie in (FCOS, 1904.01355 section 3 and 2006.09214 section 3.1).

    A point is positive for an object if it is inside the object's box, if the largest distance to the box's sides is
    within the ``ranges`` (above, below) of its level, and, unless ``radius`` is None, if it is less than ``radius``
    times its level's stride from the center of the box along both axes. Of several objects it takes the smallest. The
    other points are negative.
    """
    if not len(boxes):
        labels = torch.full((len(points),), NEGATIVE, dtype=torch.int64, device=points.device)
        return Match(labels, torch.zeros_like(labels))
    distances = encode_distances(boxes[None], points[:, None])
    largest = distances.amax(dim=2)
    fits = distances.amin(dim=2) > 0
    fits &= (largest > ranges[:, :1]) & (largest < ranges[:, 1:])
    if radius is not None:
        fits &= near_centers(points, boxes, radius * strides)
    areas = torch.where(fits, box_areas(boxes), torch.inf)
    return Match(torch.where(fits.any(dim=1), POSITIVE, NEGATIVE), areas.argmin(dim=1))


def near_centers(
    points: Float[Tensor, "n 2"], boxes: Float[Tensor, "m 4"], radii: Float[Tensor, " n"]
) -> Bool[Tensor, "n m"]:
    """Return whether each point is less than its radius from the center of each box along both axes, in pixels."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return (points[:, None] - centers).abs().amax(dim=2) < radii[:, None]


def match_by_cost(costs: Float[Tensor, "n m"], iou: Float[Tensor, "n m"], candidates: int = 10) -> Match:
    """Match references to objects by SimOTA: each object takes the references of lowest cost (2107.08430 section 2.1).

    ``costs`` and ``iou`` have a row per reference and a column per object; an infinite cost forbids a match. The number
    of references that an object takes is the sum of its ``candidates`` highest IoUs, rounded down but at least 1
    (dynamic k). A reference taken by several objects is matched to that of the lowest cost. All others are negative.
    """
    count, num_objects = costs.shape
    labels = torch.full((count,), NEGATIVE, dtype=torch.int64, device=costs.device)
    if not num_objects:
        return Match(labels, torch.zeros_like(labels))
    candidates = min(candidates, count)
    highest = iou.masked_fill(costs.isinf(), 0).topk(candidates, dim=0).values
    numbers = highest.sum(dim=0).int().clamp(min=1)
    lowest = costs.topk(candidates, dim=0, largest=False)
    wanted = torch.arange(candidates, device=costs.device)[:, None] < numbers
    taken = torch.zeros_like(costs, dtype=torch.bool).scatter(0, lowest.indices, wanted & lowest.values.isfinite())
    taken_by = taken.sum(dim=1)
    target_indices = torch.where(taken_by > 1, costs.argmin(dim=1), taken.int().argmax(dim=1))
    return Match(torch.where(taken_by > 0, POSITIVE, labels), target_indices)


def match_by_statistics(
    references: Float[Tensor, "n 4"], boxes: Float[Tensor, "m 4"], counts: Sequence[int], candidates: int = 9
) -> Match:
    """Match references to objects with a threshold of IoU for each object (ATSS, 1912.02424 Algorithm 1).

    ``counts`` is the number of references per level. The candidates for an object are, on every level, the references
    whose centers are nearest to its own. A candidate is positive if its center is inside the box, and its IoU is at
    least the mean plus the standard deviation of the IoUs of all the object's candidates. Of several objects it takes
    that of the highest IoU. The other references are negative. With fewer than three levels an object may get none.
    """
    if not len(boxes):
        labels = torch.full((len(references),), NEGATIVE, dtype=torch.int64, device=references.device)
        return Match(labels, torch.zeros_like(labels))
    iou = pairwise_iou(boxes, references)
    centers = (references[:, :2] + references[:, 2:]) / 2
    from_center = torch.cdist((boxes[:, :2] + boxes[:, 2:]) / 2, centers)
    first, nearest = 0, []
    for level in from_center.split(list(counts), dim=1):
        nearest.append(level.topk(min(candidates, level.shape[1]), largest=False).indices + first)
        first += level.shape[1]
    rows = torch.cat(nearest, dim=1)
    overlaps = iou.gather(1, rows)
    spread = overlaps.std(dim=1) if overlaps.shape[1] > 1 else 0.0
    thresholds = overlaps.mean(dim=1) + spread
    inside = encode_distances(boxes[:, None], centers[None]).amin(dim=2) > 0
    is_candidate = torch.zeros_like(inside).scatter(1, rows, True)
    fits = is_candidate & inside & (iou >= thresholds[:, None])
    best = torch.where(fits, iou, -1).max(dim=0)
    return Match(torch.where(best.values >= 0, POSITIVE, NEGATIVE), best.indices)


def ignore_regions(
    labels: Int64[Tensor, " n"],
    references: Float[Tensor, "n 4"],
    regions: Float[Tensor, "m 4"] | None,
    coverage: float,
) -> Int64[Tensor, " n"]:
    """Ignore negatives whose area is covered by one ignore region, such as a crowd, by at least ``coverage`` (0..1)."""
    if regions is None or not len(regions):
        return labels
    covered = pairwise_intersection(references, regions).amax(dim=1)
    areas = box_areas(references)
    inside = (covered >= coverage * areas) & (areas > 0)
    return torch.where(inside & (labels == NEGATIVE), IGNORED, labels)


class Sample(NamedTuple):
    """A fixed number of references sampled for a loss, positives first."""

    indices: Int64[Tensor, " s"]
    """The index of each sampled reference."""
    valid: Bool[Tensor, " s"]
    """False for padding rows, which fill the sample if there are too few references."""
    positive: Bool[Tensor, " s"]
    """Whether the reference is positive."""


def sample_labels(
    labels: Int64[Tensor, " n"], count: int, positive_fraction: float, keys: Float[Tensor, " n"]
) -> Sample:
    """Sample ``count`` references: positives, at most ``positive_fraction`` of the sample, then negatives.

    ``keys`` are random numbers below 1; the references with the smallest keys are sampled. The sample has
    ``min(count, n)`` rows whatever the labels are, so no value is read back from the device.
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
    """Return ``rows[target_indices]``, or ``default`` if the image has no objects (``rows`` is empty)."""
    return rows[target_indices] if len(rows) else default
