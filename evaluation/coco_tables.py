"""COCO's matching of detections to objects, and its tables of precision and recall, for overlaps of any kind.

The engines compute their overlaps themselves; this is for those that neither of them has. Numbers are those of
pycocotools to the last digit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREA_RANGES = np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)])
"""All, small, medium and large, in pixels."""
LIMITS = (1, 10, 100)
"""Detections of an image and class that are looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The detections and objects of one image and class; detections are the best 100, best first."""

    class_index: int
    overlaps: Float64[ndarray, "d g"]
    scores: Float64[ndarray, " d"]
    detection_areas: Float64[ndarray, " d"]
    object_areas: Float64[ndarray, " g"]
    crowd: Bool[ndarray, " g"]


@dataclass(frozen=True, slots=True, eq=False)
class _Matches:
    """The detections of a group that hit an object or are ignored, by IoU threshold and range of areas."""

    hits: Bool[ndarray, "t a d"]
    ignored: Bool[ndarray, "t a d"]


def precision_and_recall(
    groups: Iterable[Group], num_classes: int
) -> tuple[Float64[ndarray, "t r k a m"], Float64[ndarray, "t k a m"]]:
    """Return precision by IoU threshold, recall, class, range of areas and limit of detections; and recall without the
    second of these. -1 stands where there is no object to find.

    Among equal scores the order of the groups decides.
    """
    by_class: list[list[Group]] = [[] for _ in range(num_classes)]
    for group in groups:
        by_class[group.class_index].append(group)
    shape = len(IOU_THRESHOLDS), len(RECALLS), num_classes, len(AREA_RANGES), len(LIMITS)
    precision = np.full(shape, -1.0)
    recall = np.full((shape[0], *shape[2:]), -1.0)
    for index, members in enumerate(by_class):
        if members:
            _fill(precision[:, :, index], recall[:, index], members)
    return precision, recall


def _fill(precision: Float64[ndarray, "t r a m"], recall: Float64[ndarray, "t a m"], groups: Sequence[Group]) -> None:
    """Fill in the tables of one class."""
    matches = [_match(group) for group in groups]
    hits = np.concatenate([match.hits for match in matches], axis=2)
    ignored = np.concatenate([match.ignored for match in matches], axis=2)
    scores = np.concatenate([group.scores for group in groups])
    ranks = np.concatenate([np.arange(len(group.scores)) for group in groups])
    objects = np.sum([(~_ignored_objects(group)).sum(axis=1) for group in groups], axis=0)
    for limit_index, limit in enumerate(LIMITS):
        looked_at = np.flatnonzero(ranks < limit)
        order = looked_at[np.argsort(-scores[looked_at], kind="stable")]
        for area in np.flatnonzero(objects).tolist():
            for threshold in range(len(IOU_THRESHOLDS)):
                counted = ~ignored[threshold, area, order]
                curve, last = _curve(hits[threshold, area, order][counted], int(objects[area]))
                precision[threshold, :, area, limit_index] = curve
                recall[threshold, area, limit_index] = last


def _match(group: Group) -> _Matches:
    """Match detections, best first, each to the object that it overlaps most and that none before it has taken.

    An object that is ignored, a crowd or one outside the range of areas, is matched only where no other can be; a
    crowd can be matched many times. A detection counts as ignored where its object is, and where it has none and its
    own area is outside the range.
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
        best = len(overlaps) - 1 - np.where(candidates, overlaps, -1.0)[:, :, ::-1].argmax(axis=2)  # the last of equals
        matched = candidates.any(axis=2)
        is_ignored = ignored_objects[areas, best]
        hits[:, :, index] = matched & ~is_ignored
        ignored[:, :, index] = np.where(matched, is_ignored, outside[:, index])
        free[thresholds, areas, best] &= ~matched | group.crowd[best]
    return _Matches(hits, ignored)


def _ignored_objects(group: Group) -> Bool[ndarray, "a g"]:
    return group.crowd | _outside(group.object_areas)


def _outside(values: Float64[ndarray, " n"]) -> Bool[ndarray, "a n"]:
    """Return which areas are outside each range."""
    return (values < AREA_RANGES[:, :1]) | (values > AREA_RANGES[:, 1:])


def _curve(hits: Bool[ndarray, " n"], objects: int) -> tuple[Float64[ndarray, " r"], float]:
    """Return the precision at each recall, made to fall, and the recall that is reached."""
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
