"""Which reference box learns which object, and which references are drawn for a loss."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .boxes import box_areas, pairwise_intersection, pairwise_iou

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class Match(NamedTuple):
    """For every reference: the object it overlaps most (0 where there is none), and what it is taken for."""

    objects: Int64[Tensor, " n"]
    labels: Int64[Tensor, " n"]  # POSITIVE, NEGATIVE or IGNORED


def match_boxes(
    references: Float[Tensor, "n 4"],
    boxes: Float[Tensor, "m 4"],
    thresholds: tuple[float, float],
    keep_best: bool = False,
) -> Match:
    """Match by IoU: positive from ``thresholds[1]`` up, negative below ``thresholds[0]``, ignored between.

    With ``keep_best`` every object also makes the references positive that overlap it most, however little, so that
    none goes unlearned (1506.01497 section 3.1.2 (i)). An object that overlaps no reference at all makes none
    positive; torchvision and detectron2 would then take every reference without overlap for it.
    """
    labels = torch.full((len(references),), NEGATIVE, dtype=torch.int64, device=references.device)
    if not len(boxes):
        return Match(torch.zeros_like(labels), labels)
    iou = pairwise_iou(boxes, references)
    overlap, objects = iou.max(dim=0)
    labels = torch.where(overlap >= thresholds[0], IGNORED, labels)
    positive = overlap >= thresholds[1]
    if keep_best:
        best = iou.amax(dim=1, keepdim=True)
        positive |= ((iou == best) & (best > 0)).any(dim=0)
    return Match(objects, torch.where(positive, POSITIVE, labels))


def ignore_regions(
    labels: Int64[Tensor, " n"],
    references: Float[Tensor, "n 4"],
    regions: Float[Tensor, "m 4"] | None,
    coverage: float,
) -> Int64[Tensor, " n"]:
    """Turn negatives into ignored ones where a region (a crowd) covers at least this share of their area."""
    if regions is None or not len(regions):
        return labels
    covered = pairwise_intersection(references, regions).amax(dim=1)
    areas = box_areas(references)
    inside = (covered >= coverage * areas) & (areas > 0)
    return torch.where(inside & (labels == NEGATIVE), IGNORED, labels)


class Sample(NamedTuple):
    """A fixed number of drawn indices, positives first; ``valid`` is False where there was nothing left to draw."""

    indices: Int64[Tensor, " s"]
    valid: Bool[Tensor, " s"]


def sample_labels(
    labels: Int64[Tensor, " n"], count: int, positive_fraction: float, keys: Float[Tensor, " n"]
) -> Sample:
    """Draw ``count`` references, those of the least ``keys`` (random, below 1): positives up to a fraction of them, the
    rest negatives.

    The result has ``min(count, n)`` places whatever the labels are, and no value is read back from the device.
    """
    total = len(labels)
    positives = min(int(count * positive_fraction), total)
    count = min(count, total)
    drawn = [
        torch.where(labels == kind, keys, 2.0).topk(places, largest=False).indices
        for kind, places in ((POSITIVE, positives), (NEGATIVE, count))
    ]
    found_positive = (labels == POSITIVE).sum().clamp(max=positives)
    found_negative = (labels == NEGATIVE).sum()
    place = torch.arange(count, device=labels.device)
    source = torch.where(place < found_positive, place, positives + place - found_positive)
    indices = torch.cat(drawn)[source]
    return Sample(indices, place < found_positive + found_negative)
