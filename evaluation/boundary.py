"""Boundary AP (2103.16562): masks match by how well their outlines agree, not by their areas alone."""

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from hotcoco.primitives import mask_iou
from jaxtyping import Bool, Float64, UInt8
from numpy import ndarray

from ..formats.rle import decode_mask, encode_segmentation
from .coco_inputs import CocoInputs
from .coco_tables import LIMITS, Group, precision_and_recall

REACH = 0.02
"""How far inwards a boundary goes, as a fraction of the image's diagonal (section 4)."""
LEAST_OVERLAP = 0.5
"""The first of COCO's thresholds: masks that overlap less match nowhere, whatever their boundaries."""
IN_FLIGHT = 256
"""Groups that wait for a thread at a time."""

Entries = Sequence[Mapping[str, Any]]


def evaluate_boundaries(inputs: CocoInputs) -> tuple[Float64[ndarray, "t r k a m"], Float64[ndarray, "t k a m"]]:
    """Return COCO's tables of precision and recall of masks by the smaller of mask IoU and boundary IoU (section 6).

    Crowds match by their masks alone. Threads share the images.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in inputs.ground_truth["images"]}
    truths, detections = _group(inputs.ground_truth["annotations"]), _group(inputs.detections["annotations"])
    keys = sorted(truths.keys() | detections.keys(), key=lambda key: (key[1], key[0]))

    def measure(key: tuple[int, int]) -> Group:
        return _measure(truths.get(key, ()), detections.get(key, ()), key[1] - 1, sizes[key[0]])

    return precision_and_recall(_in_threads(measure, keys), len(inputs.class_names))


def _in_threads(measure: Any, keys: Sequence[tuple[int, int]]) -> Iterator[Group]:
    """Measure groups by threads, in order; decoding and eroding masks keeps no other thread waiting."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for first in range(0, len(keys), IN_FLIGHT):
            yield from pool.map(measure, keys[first : first + IN_FLIGHT])


def _group(entries: Entries) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    """Return the entries of each image and class."""
    groups = defaultdict(list)
    for entry in entries:
        groups[entry["image_id"], entry["category_id"]].append(entry)
    return groups


def _measure(truths: Entries, detections: Entries, class_index: int, size: tuple[int, int]) -> Group:
    """Return the overlaps of the best detections of an image and class with its objects."""
    best = sorted(detections, key=lambda detection: -detection["score"])[: LIMITS[-1]]
    crowd = np.array([bool(truth["iscrowd"]) for truth in truths], bool)
    overlaps = np.zeros((len(best), len(truths)))
    if best and truths:
        true_masks = [encode_segmentation(truth["segmentation"], size) for truth in truths]
        detection_masks = [detection["segmentation"] for detection in best]
        overlaps = np.array(mask_iou(detection_masks, true_masks, crowd))
        _take_boundaries_into_account(overlaps, detection_masks, true_masks, crowd)
    return Group(
        class_index,
        overlaps,
        np.array([detection["score"] for detection in best], np.float64),
        np.array([detection["area"] for detection in best], np.float64),
        np.array([truth["area"] for truth in truths], np.float64),
        crowd,
    )


def _take_boundaries_into_account(
    overlaps: Float64[ndarray, "d g"], detections: Sequence[Any], truths: Sequence[Any], crowd: Bool[ndarray, " g"]
) -> None:
    """Lower the overlaps of masks to those of their boundaries."""
    rows, columns = np.nonzero((overlaps >= LEAST_OVERLAP) & ~crowd)
    detection_boundaries = {row: inner_boundary(decode_mask(detections[row]).T) for row in set(rows.tolist())}
    true_boundaries = {column: inner_boundary(decode_mask(truths[column]).T) for column in set(columns.tolist())}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        overlap = boundary_iou(detection_boundaries[row], true_boundaries[column])
        overlaps[row, column] = min(overlaps[row, column], overlap)


@dataclass(frozen=True, slots=True, eq=False)
class Boundary:
    """The boundary of a mask inside the mask's box; ``top`` and ``left`` are the box's first row and column."""

    top: int
    left: int
    pixels: Bool[ndarray, "h w"]


def inner_boundary(mask: UInt8[ndarray, "h w"]) -> Boundary:
    """Return the pixels of a mask that are near its outline; where the image cuts a mask off, that is outline too."""
    reach = max(1, round(REACH * math.hypot(*mask.shape)))
    left, top, width, height = cv2.boundingRect(mask)
    inside = np.ascontiguousarray(mask[top : top + height, left : left + width])
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    core = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=reach)[1:-1, 1:-1]
    return Boundary(top, left, (inside > 0) & (core == 0))


def boundary_iou(first: Boundary, second: Boundary) -> float:
    """Return the IoU of the boundaries of two masks that overlap."""
    top, left = max(first.top, second.top), max(first.left, second.left)
    bottom = min(boundary.top + boundary.pixels.shape[0] for boundary in (first, second))
    right = min(boundary.left + boundary.pixels.shape[1] for boundary in (first, second))
    common = [
        boundary.pixels[top - boundary.top : bottom - boundary.top, left - boundary.left : right - boundary.left]
        for boundary in (first, second)
    ]
    intersection = np.count_nonzero(common[0] & common[1])
    return intersection / (np.count_nonzero(first.pixels) + np.count_nonzero(second.pixels) - intersection)
