"""Average precision as in PASCAL VOC's development kit (VOCevaldet.m, VOCap.m; Everingham et al., IJCV 2010).

The kit counts pixels from 1, and its box from x1 to x2 has the width x2 - x1 + 1. Boxes here have continuous
coordinates, so that the same box begins at x1 - 1; widths, areas and overlaps are equal.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from .coco_columns import Columns
from .coco_inputs import build_coco_inputs
from .scores import Scores

Rule = Literal["11-point", "area"]
POINTS = 11


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """Boxes (xyxy) of all images and classes."""

    images: Int64[ndarray, " n"]
    """The image number of each box, from 1."""
    classes: Int64[ndarray, " n"]
    """The category number of each box, from 1."""
    corners: Float64[ndarray, "n 4"]

    @classmethod
    def of(cls, columns: Columns) -> "_Boxes":
        boxes = columns.boxes
        assert boxes is not None, "the columns are those of boxes"
        return cls(
            columns.images, columns.categories, np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        )

    def groups(self) -> dict[tuple[int, int], list[int]]:
        """Return the indices of the boxes by (image number, category number)."""
        indices = defaultdict(list)
        for index, key in enumerate(zip(self.images.tolist(), self.classes.tolist(), strict=True)):
            indices[key].append(index)
        return indices


def evaluate_voc(
    ground_truth: dict[str, Any], results: list[dict[str, Any]], rule: Rule = "area", iou: float = 0.5
) -> Scores:
    """Score COCO results against ground truth in COCO's format with VOC's average precision.

    ``rule`` is ``11-point``, the mean precision at recall 0, 0.1, ... 1 (VOC2007), or ``area``, the area under the
    precision-recall curve (VOC2010 and later). Objects marked ``difficult`` are ignored: they need not be detected, and
    detections of them do not count. Ties between equal scores are broken by the order of the results. The mean is over
    classes with at least one object that is not difficult. Raises DataError for invalid annotations or results.
    """
    inputs = build_coco_inputs(ground_truth, results, "bbox")
    truths, detections = _Boxes.of(inputs.truths), _Boxes.of(inputs.found)
    scores = np.array([result["score"] for result in results], np.float64)
    difficult = np.array([bool(entry.get("difficult", 0)) for entry in ground_truth["annotations"]], bool)
    matches = _best_overlaps(truths, detections, iou)
    per_class: dict[str, float | None] = {}
    objects: dict[str, int] = {}
    for number, name in enumerate(inputs.class_names, start=1):
        indices = np.flatnonzero(detections.classes == number)
        order = indices[np.argsort(-scores[indices], kind="stable")]
        objects[name] = count = int(((truths.classes == number) & ~difficult).sum())
        hits, counted = _find_hits(matches[order], difficult)
        per_class[name] = _average_precision(hits[counted], count, rule) if count else None
    measured = [value for value in per_class.values() if value is not None]
    mean = float(np.mean(measured)) if measured else None
    images = len(inputs.images)
    counts = {
        "images": images,
        "images_without_detections": images - len(set(detections.images.tolist())),
        "detections": len(results),
        "difficult_objects": int(difficult.sum()),
    }
    return Scores({f"AP{round(100 * iou)}": mean}, per_class, counts, objects=objects)


def _best_overlaps(truths: _Boxes, detections: _Boxes, iou: float) -> Int64[ndarray, " n"]:
    """Return for each detection the index of the object with the greatest IoU, or -1 if that is below ``iou``.

    All objects of the image and class are considered, including difficult and already detected objects; the first wins
    a tie.
    """
    import torch

    from ..ops import pairwise_iou  # imports torchvision, which the other metrics do not need

    matches = np.full(len(detections.images), -1)
    groups = truths.groups()
    for key, indices in detections.groups().items():
        if key in groups:
            candidates = np.array(groups[key])
            overlaps = pairwise_iou(
                torch.from_numpy(detections.corners[indices]), torch.from_numpy(truths.corners[candidates])
            ).numpy()
            best = overlaps.argmax(axis=1)
            matches[indices] = np.where(overlaps.max(axis=1) >= iou, candidates[best], -1)
    return matches


def _find_hits(
    matches: Int64[ndarray, " n"], difficult: Bool[ndarray, " m"]
) -> tuple[Bool[ndarray, " n"], Bool[ndarray, " n"]]:
    """Return which detections, best first, are true positives, and which count at all.

    Detections of difficult objects do not count. Further detections of an object are false positives.
    """
    matched = matches >= 0
    counted = ~matched
    counted[matched] = ~difficult[matches[matched]]
    first = np.zeros(len(matches), bool)
    first[np.unique(matches, return_index=True)[1]] = True
    return first & matched & counted, counted


def _average_precision(hits: Bool[ndarray, " n"], objects: int, rule: Rule) -> float:
    """Return the average precision of detections, best first; ``hits`` are the true positives.

    Recall is compared in integers, so that rounding cannot shift a point of the 11-point rule.
    """
    hit_counts = np.cumsum(hits)
    precision = hit_counts / np.arange(1, len(hits) + 1)
    interpolated = np.maximum.accumulate(precision[::-1])[::-1]
    if rule == "area":
        # Recall grows by 1 / objects at each hit, so the area is a sum over the hits.
        return float(interpolated[hits].sum() / objects)
    last = POINTS - 1
    reached = [np.searchsorted(hit_counts * last, point * objects) for point in range(POINTS)]
    return float(sum(interpolated[index] for index in reached if index < len(hits)) / POINTS)
