"""Assignment of ground-truth objects to the references of a head, and sampling of references for a loss.

A reference is what a head predicts from: an anchor, a point, a proposal, or the box of a query. All images of a batch
are assigned together: their objects are padded (:class:`vertebra.ops.PaddedTargets`), and ``valid`` excludes padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .boxes import box_areas, encode_distances, pairwise_intersection, pairwise_iou
from .targets import PaddedTargets

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1

MAX_PAIRS = 2**27
"""The maximum number of (object, reference) pairs that are computed at a time: 512 MiB per float32 tensor."""


class Match(NamedTuple):
    """The assignment of each reference: whether it is positive, and its object."""

    labels: Int64[Tensor, "*b n"]
    """``POSITIVE``, ``NEGATIVE`` or ``IGNORED``."""
    target_indices: Int64[Tensor, "*b n"]
    """The index of the object that the reference fits best; 0 if the image has no objects."""


def assign_boxes(
    references: Float[Tensor, "*#b n 4"],
    targets: PaddedTargets,
    thresholds: tuple[float, float],
    *,
    keep_best: bool = False,
    ignore_coverage: float = 0.5,
) -> Match:
    """Assign the objects of each image to references: :func:`match_boxes`, then :func:`ignore_regions`.

    The references are those of each image, or the same for all. ``ignore_coverage`` is the fraction of a reference's
    area that an ignore region must cover.
    """
    images, count = targets.boxes.shape[:2]
    num_references = references.shape[-2]
    chunk = max(1, MAX_PAIRS // max(1, count * num_references))
    if chunk < images and not torch.compiler.is_compiling():  # a compiled graph does not keep the pairs in memory
        references = references.expand(images, num_references, 4)
        parts = [
            assign_boxes(
                references[first : first + chunk],
                targets.of_images(first, first + chunk),
                thresholds,
                keep_best=keep_best,
                ignore_coverage=ignore_coverage,
            )
            for first in range(0, images, chunk)
        ]
        return Match(*(torch.cat(column) for column in zip(*parts, strict=True)))
    match = match_boxes(references, targets.boxes, targets.valid, thresholds, keep_best)
    return match._replace(labels=ignore_regions(match.labels, references, targets.ignored, ignore_coverage))


def match_boxes(
    references: Float[Tensor, "*#b n 4"],
    boxes: Float[Tensor, "*b m 4"],
    valid: Bool[Tensor, "*b m"],
    thresholds: tuple[float, float],
    keep_best: bool = False,
) -> Match:
    """Match references to objects by IoU.

    A reference is positive if its highest IoU is at least ``thresholds[1]``, negative if it is below ``thresholds[0]``,
    and ignored otherwise. With ``keep_best``, the references with the highest IoU for each object are positive as well,
    however low that IoU is, so that every object has a positive reference (1506.01497 section 3.1.2 (i)). An object
    that overlaps no reference gets none; torchvision and detectron2 would match it to all references with an IoU of 0.
    """
    iou = pairwise_iou(boxes, references).masked_fill_(~valid[..., None], -1)
    overlap, target_indices = iou.max(dim=-2)
    labels = torch.where(overlap >= thresholds[0], IGNORED, NEGATIVE)
    positive = overlap >= thresholds[1]
    if keep_best:
        best = iou.amax(dim=-1, keepdim=True)
        positive |= ((iou == best) & (best > 0)).any(dim=-2)
    return Match(torch.where(positive, POSITIVE, labels), target_indices)


def match_points(
    points: Float[Tensor, "n 2"],
    boxes: Float[Tensor, "*b m 4"],
    valid: Bool[Tensor, "*b m"],
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
    distances = encode_distances(boxes[..., None, :, :], points[:, None])
    largest = distances.amax(dim=-1)
    fits = (distances.amin(dim=-1) > 0) & valid[..., None, :]
    fits &= (largest > ranges[:, :1]) & (largest < ranges[:, 1:])
    if radius is not None:
        fits &= near_centers(points, boxes, radius * strides)
    areas = torch.where(fits, box_areas(boxes)[..., None, :], torch.inf)
    return Match(torch.where(fits.any(dim=-1), POSITIVE, NEGATIVE), areas.argmin(dim=-1))


def near_centers(
    points: Float[Tensor, "n 2"], boxes: Float[Tensor, "*b m 4"], radii: Float[Tensor, " n"]
) -> Bool[Tensor, "*b n m"]:
    """Return whether each point is less than its radius from the center of each box along both axes, in pixels."""
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    return (points[:, None] - centers[..., None, :, :]).abs().amax(dim=-1) < radii[:, None]


def match_by_cost(costs: Float[Tensor, "*b n m"], iou: Float[Tensor, "*b n m"], candidates: int = 10) -> Match:
    """Match references to objects by SimOTA: each object takes the references of lowest cost (2107.08430 section 2.1).

    ``costs`` and ``iou`` have a row per reference and a column per object; an infinite cost forbids a match. The number
    of references that an object takes is the sum of its ``candidates`` highest IoUs, rounded down but at least 1
    (dynamic k). A reference taken by several objects is matched to that of the lowest cost. All others are negative.
    """
    candidates = min(candidates, costs.shape[-2])
    highest = iou.masked_fill(costs.isinf(), 0).topk(candidates, dim=-2).values
    numbers = highest.sum(dim=-2, keepdim=True).int().clamp(min=1)
    lowest = costs.topk(candidates, dim=-2, largest=False)
    wanted = torch.arange(candidates, device=costs.device)[:, None] < numbers
    taken = torch.zeros_like(costs, dtype=torch.bool).scatter(-2, lowest.indices, wanted & lowest.values.isfinite())
    taken_by = taken.sum(dim=-1)
    target_indices = torch.where(taken_by > 1, costs.argmin(dim=-1), taken.int().argmax(dim=-1))
    return Match(torch.where(taken_by > 0, POSITIVE, NEGATIVE), target_indices)


def match_by_statistics(
    references: Float[Tensor, "n 4"],
    boxes: Float[Tensor, "*b m 4"],
    valid: Bool[Tensor, "*b m"],
    counts: Sequence[int],
    candidates: int = 9,
) -> Match:
    """Match references to objects with a threshold of IoU for each object (ATSS, 1912.02424 Algorithm 1).

    ``counts`` is the number of references per level. The candidates for an object are, on every level, the references
    whose centers are nearest to its own. A candidate is positive if its center is inside the box, and its IoU is at
    least the mean plus the standard deviation of the IoUs of all the object's candidates. Of several objects it takes
    that of the highest IoU. The other references are negative. With fewer than three levels an object may get none.
    """
    iou = pairwise_iou(boxes, references)
    centers = (references[:, :2] + references[:, 2:]) / 2
    from_center = torch.cdist((boxes[..., :2] + boxes[..., 2:]) / 2, centers)
    first, nearest = 0, []
    for level in from_center.split(list(counts), dim=-1):
        nearest.append(level.topk(min(candidates, level.shape[-1]), largest=False).indices + first)
        first += level.shape[-1]
    rows = torch.cat(nearest, dim=-1)
    overlaps = iou.gather(-1, rows)
    spread = overlaps.std(dim=-1) if overlaps.shape[-1] > 1 else 0.0
    thresholds = overlaps.mean(dim=-1) + spread
    inside = encode_distances(boxes[..., None, :], centers).amin(dim=-1) > 0
    is_candidate = torch.zeros_like(inside).scatter(-1, rows, True)
    fits = is_candidate & inside & (iou >= thresholds[..., None]) & valid[..., None]
    best = torch.where(fits, iou, -1).max(dim=-2)
    return Match(torch.where(best.values >= 0, POSITIVE, NEGATIVE), best.indices)


def ignore_regions(
    labels: Int64[Tensor, "*b n"],
    references: Float[Tensor, "*#b n 4"],
    regions: Float[Tensor, "*b i 4"],
    coverage: float,
) -> Int64[Tensor, "*b n"]:
    """Ignore negatives whose area is covered by one ignore region, such as a crowd, by at least ``coverage`` (0..1).

    Regions without an area are padding.
    """
    if not regions.shape[-2]:
        return labels
    is_region = box_areas(regions)[..., None] > 0
    covered = pairwise_intersection(regions, references).masked_fill_(~is_region, -1).amax(dim=-2)
    areas = box_areas(references)
    inside = (covered >= coverage * areas) & (areas > 0)
    return torch.where(inside & (labels == NEGATIVE), IGNORED, labels)


class Sample(NamedTuple):
    """A fixed number of references sampled for a loss from each image, positives first."""

    indices: Int64[Tensor, "*b s"]
    """The index of each sampled reference."""
    valid: Bool[Tensor, "*b s"]
    """False for padding rows, which fill the sample if there are too few references."""
    positive: Bool[Tensor, "*b s"]
    """Whether the reference is positive."""


def sample_labels(
    labels: Int64[Tensor, "*b n"], count: int, positive_fraction: float, keys: Float[Tensor, "*b n"]
) -> Sample:
    """Sample ``count`` references of each image: positives, at most ``positive_fraction`` of them, then negatives.

    ``keys`` are random numbers below 1; the references with the smallest keys are sampled. The sample has
    ``min(count, n)`` rows whatever the labels are, so no value is read back from the device.
    """
    total = labels.shape[-1]
    max_positives = min(int(count * positive_fraction), total)
    count = min(count, total)
    candidates = [
        torch.where(labels == label, keys, 2.0).topk(size, largest=False).indices
        for label, size in ((POSITIVE, max_positives), (NEGATIVE, count))
    ]
    num_positives = (labels == POSITIVE).sum(dim=-1, keepdim=True).clamp(max=max_positives)
    num_negatives = (labels == NEGATIVE).sum(dim=-1, keepdim=True)
    row = torch.arange(count, device=labels.device)
    source = torch.where(row < num_positives, row, max_positives + row - num_positives)
    indices = torch.cat(candidates, dim=-1).gather(-1, source)
    return Sample(indices, row < num_positives + num_negatives, row < num_positives)
