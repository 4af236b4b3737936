"""Boundary AP (2103.16562): masks match by how well their outlines agree, not by their areas alone."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from hotcoco import mask as rle
from jaxtyping import Bool, UInt8
from numpy import ndarray
from pycocotools.cocoeval import COCOeval

REACH = 0.02
"""How far inwards a boundary goes, as a share of the image's diagonal (section 4)."""
LEAST_OVERLAP = 0.5
"""The first of COCO's thresholds: masks that overlap less match nowhere, whatever their boundaries."""


class BoundaryEvaluation(COCOeval):
    """COCO's evaluation of masks by the smaller of mask IoU and boundary IoU (section 6); crowds by their masks alone.

    Through pycocotools, the engine that lets its overlaps be replaced.
    """

    def __init__(self, truth: Any, detections: Any) -> None:
        super().__init__(truth, detections, "segm")

    def computeIoU(self, imgId: Any, catId: Any) -> Any:  # pycocotools calls it so
        """Of each detection, best first, with each true object of an image and class."""
        overlaps: Any = super().computeIoU(imgId, catId)
        prepared: Any = self
        truths = prepared._gts[imgId, catId]
        detections = sorted(prepared._dts[imgId, catId], key=lambda detection: -detection["score"])

        @functools.cache
        def boundary(found: bool, place: int) -> Boundary:
            # Kept until this image and class are done: no other looks at its shapes.
            return inner_boundary(rle.decode((detections if found else truths)[place]["segmentation"]))

        for row, column in np.argwhere(np.array(overlaps) >= LEAST_OVERLAP).tolist():
            if not truths[column]["iscrowd"]:
                overlap = boundary_overlap(boundary(True, row), boundary(False, column))
                overlaps[row, column] = min(overlaps[row, column], overlap)
        return overlaps


@dataclass(frozen=True, slots=True, eq=False)
class Boundary:
    """The boundary of a mask inside the mask's box, whose first row and column in the image are ``top`` and ``left``:
    beyond the box there is none."""

    top: int
    left: int
    pixels: Bool[ndarray, "h w"]


def inner_boundary(mask: UInt8[ndarray, "h w"]) -> Boundary:
    """The pixels of a mask that are near its outline; where the image cuts a mask off, that is outline too."""
    reach = max(1, round(REACH * math.hypot(*mask.shape)))
    left, top, width, height = cv2.boundingRect(mask)
    inside = np.ascontiguousarray(mask[top : top + height, left : left + width])
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    core = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=reach)[1:-1, 1:-1]
    return Boundary(top, left, (inside > 0) & (core == 0))


def boundary_overlap(first: Boundary, second: Boundary) -> float:
    """The IoU of the boundaries of two masks that overlap."""
    pair = (first, second)
    top, left = max(each.top for each in pair), max(each.left for each in pair)
    bottom = min(each.top + each.pixels.shape[0] for each in pair)
    right = min(each.left + each.pixels.shape[1] for each in pair)
    shared = [each.pixels[top - each.top : bottom - each.top, left - each.left : right - each.left] for each in pair]
    intersection = np.count_nonzero(shared[0] & shared[1])
    return intersection / (np.count_nonzero(first.pixels) + np.count_nonzero(second.pixels) - intersection)
