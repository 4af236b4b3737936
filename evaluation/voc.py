"""Average precision as PASCAL VOC's development kit defines it (VOCevaldet.m, VOCap.m; Everingham et al., IJCV 2010).

The kit counts pixels from 1 and gives a box from x1 to x2 the width x2 - x1 + 1. Ours are continuous, so that the same
box begins at x1 - 1: widths, areas and overlaps are equal.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from ..ops import pairwise_iou
from .checks import check_results
from .coco_inputs import build_coco_inputs
from .scores import Scores

Rule = Literal["11-point", "area"]
POINTS = 11


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """Boxes (xyxy) of all images and classes, each with the numbers of its own."""

    images: Int64[ndarray, " n"]
    classes: Int64[ndarray, " n"]
    corners: Float64[ndarray, "n 4"]

    @classmethod
    def of(cls, entries: list[dict[str, Any]]) -> "_Boxes":
        boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
        return cls(
            np.array([entry["image_id"] for entry in entries], np.int64),
            np.array([entry["category_id"] for entry in entries], np.int64),
            np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        )

    def groups(self) -> dict[tuple[int, int], list[int]]:
        """The places of the boxes of each image and class."""
        places = defaultdict(list)
        for place, key in enumerate(zip(self.images.tolist(), self.classes.tolist(), strict=True)):
            places[key].append(place)
        return places


def evaluate_voc(
    ground_truth: dict[str, Any], results: list[dict[str, Any]], rule: Rule = "area", iou: float = 0.5
) -> Scores:
    """Score COCO results against ground truth in COCO's format; DataError for bad ones.

    ``rule`` averages the precision at recall 0, 0.1 .. 1 (VOC2007: ``11-point``) or takes the area below the curve
    (VOC2010 on). Annotations marked ``difficult`` need not be found, and finding them is not punished. Among equal
    scores the order of the results decides. The mean is over the classes that have something to find.
    """
    check_results(results, ground_truth)
    problem = build_coco_inputs(ground_truth, results, "bbox")
    truths, found = (_Boxes.of(part["annotations"]) for part in (problem.truth, problem.detections))
    scores = np.array([result["score"] for result in results], np.float64)
    difficult = np.array([bool(entry.get("difficult", 0)) for entry in ground_truth["annotations"]], bool)
    partners = _best_overlaps(truths, found, iou)
    per_class = {}
    for number, name in enumerate(problem.class_names, start=1):
        own = np.flatnonzero(found.classes == number)
        order = own[np.argsort(-scores[own], kind="stable")]
        objects = int(((truths.classes == number) & ~difficult).sum())
        hits, counted = _judge(partners[order], difficult)
        per_class[name] = _average_precision(hits[counted], objects, rule) if objects else None
    measured = [value for value in per_class.values() if value is not None]
    mean = float(np.mean(measured)) if measured else None
    images = len(problem.truth["images"])
    counts = {
        "images": images,
        "images_without_detections": images - len(set(found.images.tolist())),
        "detections": len(results),
        "difficult_objects": int(difficult.sum()),
    }
    return Scores({f"AP{round(100 * iou)}": mean}, per_class, counts)


def _best_overlaps(truths: _Boxes, found: _Boxes, iou: float) -> Int64[ndarray, " n"]:
    """For each detection the object of its image and class that it overlaps most, or -1 if that is below ``iou``.

    The best one is looked for among all objects, difficult and found ones too: the first of equal ones.
    """
    partners = np.full(len(found.images), -1)
    groups = truths.groups()
    for key, places in found.groups().items():
        if key in groups:
            candidates = np.array(groups[key])
            overlaps = pairwise_iou(
                torch.from_numpy(found.corners[places]), torch.from_numpy(truths.corners[candidates])
            ).numpy()
            best = overlaps.argmax(axis=1)
            partners[places] = np.where(overlaps.max(axis=1) >= iou, candidates[best], -1)
    return partners


def _judge(
    partners: Int64[ndarray, " n"], difficult: Bool[ndarray, " m"]
) -> tuple[Bool[ndarray, " n"], Bool[ndarray, " n"]]:
    """Which detections, best first, are hits, and which count at all: those of difficult objects do not.

    An object is hit once; a second detection of it is false.
    """
    matched = partners >= 0
    counted = ~matched
    counted[matched] = ~difficult[partners[matched]]
    first = np.zeros(len(partners), bool)
    first[np.unique(partners, return_index=True)[1]] = True
    return first & matched & counted, counted


def _average_precision(hits: Bool[ndarray, " n"], objects: int, rule: Rule) -> float:
    """Of hits and misses, best first. Recall is compared in whole numbers, so that no rounding moves a point."""
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    if rule == "area":
        # Recall grows by one object at a hit, where the best precision from there on is its height.
        return float(best_from[hits].sum() / objects)
    last = POINTS - 1
    reached = [np.searchsorted(found * last, point * objects) for point in range(POINTS)]
    return float(sum(best_from[place] for place in reached if place < len(hits)) / POINTS)
