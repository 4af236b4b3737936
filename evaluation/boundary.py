"""Boundary AP (2103.16562): masks are matched by the IoU of their boundaries as well as by mask IoU."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from hotcoco.primitives import mask_iou
from jaxtyping import Bool, Float64, UInt8
from numpy import ndarray

from ..formats.rle import decode_mask, encode_segmentation
from .coco_inputs import CocoInputs, Entries, group_entries
from .coco_tables import LIMITS, Group, precision_and_recall

BOUNDARY_WIDTH = 0.02
"""Width of the boundary inside the mask, as a fraction of the image diagonal (section 4)."""
MIN_OVERLAP = 0.5
"""COCO's lowest IoU threshold: masks with a lower mask IoU never match, so their boundaries are not computed."""
CHUNK_SIZE = 256
"""Number of groups submitted to the threads at a time."""


def evaluate_boundaries(
    inputs: CocoInputs, limits: tuple[int, int, int] = LIMITS
) -> tuple[Float64[ndarray, "t r k a m"], Float64[ndarray, "t k a m"]]:
    """Return COCO's tables of precision and recall, matching masks by min(mask IoU, boundary IoU) (section 6).

    Crowds are matched by mask IoU only. Threads process the groups of detections in parallel. The axes are described
    in :func:`~vertebra.evaluation.coco_tables.precision_and_recall`.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in inputs.ground_truth["images"]}
    truths, detections = (
        group_entries(inputs.ground_truth["annotations"]),
        group_entries(inputs.detections["annotations"]),
    )
    keys = sorted(truths.keys() | detections.keys(), key=lambda key: (key[1], key[0]))

    def measure(key: tuple[int, int]) -> Group:
        best = sorted(detections.get(key, ()), key=lambda detection: -detection["score"])[: limits[-1]]
        return _measure(truths.get(key, ()), best, key[1] - 1, sizes[key[0]])

    return precision_and_recall(_in_threads(measure, keys), len(inputs.class_names), limits)


def _in_threads(measure: Any, keys: Sequence[tuple[int, int]]) -> Iterator[Group]:
    """Measure groups in threads and yield them in order; decoding and eroding masks releases Python's global lock."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for first in range(0, len(keys), CHUNK_SIZE):
            yield from pool.map(measure, keys[first : first + CHUNK_SIZE])


def _measure(truths: Entries, best: Entries, class_index: int, size: tuple[int, int]) -> Group:
    """Return the group of an image and class: its best detections, its objects and their overlaps."""
    crowd = np.array([bool(truth["iscrowd"]) for truth in truths], bool)
    overlaps = np.zeros((len(best), len(truths)))
    if best and truths:
        true_masks = [encode_segmentation(truth["segmentation"], size) for truth in truths]
        detection_masks = [detection["segmentation"] for detection in best]
        overlaps = np.array(mask_iou(detection_masks, true_masks, crowd))
        _lower_to_boundary_ious(overlaps, detection_masks, true_masks, crowd)
    return Group(
        class_index,
        overlaps,
        np.array([detection["score"] for detection in best], np.float64),
        np.array([detection["area"] for detection in best], np.float64),
        np.array([truth["area"] for truth in truths], np.float64),
        crowd,
    )


def _lower_to_boundary_ious(
    overlaps: Float64[ndarray, "d g"], detections: Sequence[Any], truths: Sequence[Any], crowd: Bool[ndarray, " g"]
) -> None:
    """Replace mask IoUs in place by the smaller of mask IoU and boundary IoU, except for crowds."""
    rows, columns = np.nonzero((overlaps >= MIN_OVERLAP) & ~crowd)
    detection_boundaries = {row: inner_boundary(decode_mask(detections[row]).T) for row in set(rows.tolist())}
    true_boundaries = {column: inner_boundary(decode_mask(truths[column]).T) for column in set(columns.tolist())}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        overlap = boundary_iou(detection_boundaries[row], true_boundaries[column])
        overlaps[row, column] = min(overlaps[row, column], overlap)


@dataclass(frozen=True, slots=True, eq=False)
class Boundary:
    """The boundary pixels of a mask, cropped to the mask's box, which begins at row ``top`` and column ``left``."""

    top: int
    left: int
    pixels: Bool[ndarray, "h w"]


def inner_boundary(mask: UInt8[ndarray, "h w"]) -> Boundary:
    """Return the pixels of a mask within ``BOUNDARY_WIDTH`` of its contour; the image border counts as contour."""
    boundary_width = max(1, round(BOUNDARY_WIDTH * math.hypot(*mask.shape)))
    left, top, width, height = cv2.boundingRect(mask)
    cropped = np.ascontiguousarray(mask[top : top + height, left : left + width])
    padded = cv2.copyMakeBorder(cropped, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=boundary_width)[1:-1, 1:-1]
    return Boundary(top, left, (cropped > 0) & (eroded == 0))


def boundary_iou(first: Boundary, second: Boundary) -> float:
    """Return the IoU of the boundaries of two overlapping masks."""
    top, left = max(first.top, second.top), max(first.left, second.left)
    bottom = min(boundary.top + boundary.pixels.shape[0] for boundary in (first, second))
    right = min(boundary.left + boundary.pixels.shape[1] for boundary in (first, second))
    common = [
        boundary.pixels[top - boundary.top : bottom - boundary.top, left - boundary.left : right - boundary.left]
        for boundary in (first, second)
    ]
    intersection = np.count_nonzero(common[0] & common[1])
    return intersection / (np.count_nonzero(first.pixels) + np.count_nonzero(second.pixels) - intersection)
