"""COCO's matching of detections to objects, and its precision and recall tables, for any overlap measure.

hotcoco and pycocotools only support their own overlap measures; this module is for others, such as boundary IoU. For
equal overlaps the tables are identical to pycocotools'.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREA_RANGES = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])
"""(Minimum, maximum) area of all, small, medium and large objects, in square pixels."""
LIMITS = (1, 10, 100)
"""Maximum numbers of detections per image and class. The last one, that of AP, can be chosen."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The best detections, best first, and objects of one image and class, and their overlaps."""

    class_index: int
    overlaps: Float64[ndarray, "d g"]
    scores: Float64[ndarray, " d"]
    detection_areas: Float64[ndarray, " d"]
    object_areas: Float64[ndarray, " g"]
    crowd: Bool[ndarray, " g"]


@dataclass(frozen=True, slots=True, eq=False)
class _Matches:
    """Masks of the detections of a group that hit an object or are ignored, by IoU threshold and area range."""

    hits: Bool[ndarray, "t a d"]
    ignored: Bool[ndarray, "t a d"]


def precision_and_recall(
    groups: Iterable[Group], num_classes: int, limits: tuple[int, int, int] = LIMITS
) -> tuple[Float64[ndarray, "t r k a m"], Float64[ndarray, "t k a m"]]:
    """Return COCO's tables of precision and recall.

    The axes of precision are IoU threshold, recall, class, area range and maximum number of detections, one of
    ``limits``; recall has the same axes except recall. Entries without ground truth are -1. Ties between equal scores
    are broken by the order of the groups.
    """
    by_class: list[list[Group]] = [[] for _ in range(num_classes)]
    for group in groups:
        by_class[group.class_index].append(group)
    shape = len(IOU_THRESHOLDS), len(RECALLS), num_classes, len(AREA_RANGES), len(limits)
    precision = np.full(shape, -1.0)
    recall = np.full((shape[0], *shape[2:]), -1.0)
    for index, members in enumerate(by_class):
        if members:
            _fill(precision[:, :, index], recall[:, index], members, limits)
    return precision, recall


def _fill(
    precision: Float64[ndarray, "t r a m"],
    recall: Float64[ndarray, "t a m"],
    groups: Sequence[Group],
    limits: tuple[int, int, int],
) -> None:
    """Fill the tables of one class in place."""
    matches = [_match(group) for group in groups]
    hits = np.concatenate([match.hits for match in matches], axis=2)
    ignored = np.concatenate([match.ignored for match in matches], axis=2)
    scores = np.concatenate([group.scores for group in groups])
    ranks = np.concatenate([np.arange(len(group.scores)) for group in groups])
    objects = np.sum([(~_ignored_objects(group)).sum(axis=1) for group in groups], axis=0)
    for limit_index, limit in enumerate(limits):
        considered = np.flatnonzero(ranks < limit)
        order = considered[np.argsort(-scores[considered], kind="stable")]
        for area in np.flatnonzero(objects).tolist():
            for threshold in range(len(IOU_THRESHOLDS)):
                counted = ~ignored[threshold, area, order]
                curve, last = _curve(hits[threshold, area, order][counted], int(objects[area]))
                precision[threshold, :, area, limit_index] = curve
                recall[threshold, area, limit_index] = last


def _match(group: Group) -> _Matches:
    """Match detections, best first, each to the unmatched object with the greatest overlap.

    Ignored objects (crowds, and objects outside the area range) are matched only if no other object can be; a crowd can
    be matched many times. A detection is ignored if it matches an ignored object, or if it matches none and its area is
    outside the range.
    """
    ignored_objects = _ignored_objects(group)
    shape = len(IOU_THRESHOLDS), len(AREA_RANGES)
    free = np.ones((*shape, len(group.crowd)), bool)
    outside = _outside(group.detection_areas)
    hits = np.zeros((*shape, len(group.scores)), bool)
    ignored = np.broadcast_to(outside, hits.shape).copy()
    thresholds, areas = np.ogrid[: shape[0], : shape[1]]
    for index in np.flatnonzero((group.overlaps >= IOU_THRESHOLDS[0]).any(axis=1)).tolist():
        overlaps = group.overlaps[index]
        possible = free & (overlaps >= IOU_THRESHOLDS[:, None, None])
        preferred = possible & ~ignored_objects
        candidates = np.where(preferred.any(axis=2, keepdims=True), preferred, possible)
        best = len(overlaps) - 1 - np.where(candidates, overlaps, -1.0)[:, :, ::-1].argmax(axis=2)  # last in a tie
        matched = candidates.any(axis=2)
        is_ignored = ignored_objects[areas, best]
        hits[:, :, index] = matched & ~is_ignored
        ignored[:, :, index] = np.where(matched, is_ignored, outside[:, index])
        free[thresholds, areas, best] &= ~matched | group.crowd[best]
    return _Matches(hits, ignored)


def _ignored_objects(group: Group) -> Bool[ndarray, "a g"]:
    return group.crowd | _outside(group.object_areas)


def _outside(values: Float64[ndarray, " n"]) -> Bool[ndarray, "a n"]:
    """Return which areas are outside each of ``AREA_RANGES``."""
    return (values < AREA_RANGES[:, :1]) | (values > AREA_RANGES[:, 1:])


def _curve(hits: Bool[ndarray, " n"], objects: int) -> tuple[Float64[ndarray, " r"], float]:
    """Return the interpolated (non-increasing) precision at each of ``RECALLS``, and the final recall."""
    curve = np.zeros(len(RECALLS))
    if not len(hits):
        return curve, 0.0
    hit_counts = np.cumsum(hits).astype(float)
    precision = hit_counts / (np.arange(1, len(hits) + 1) + np.spacing(1))
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    recall = hit_counts / objects
    indices: Int64[ndarray, " r"] = np.searchsorted(recall, RECALLS, side="left")
    reached = indices < len(hits)
    curve[reached] = best_from_here[indices[reached]]
    return curve, float(recall[-1])
