"""Boundary AP (2103.16562): masks match by how well their outlines agree, not by their areas alone."""

import math
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

    def computeIoU(self, imgId: Any, catId: Any) -> Any:  # noqa: N802, N803: pycocotools calls it so
        """Of each detection, best first, with each true object of an image and class."""
        overlaps: Any = super().computeIoU(imgId, catId)
        prepared: Any = self
        truths = prepared._gts[imgId, catId]
        detections = sorted(prepared._dts[imgId, catId], key=lambda detection: -detection["score"])
        for row, column in np.argwhere(np.array(overlaps) >= LEAST_OVERLAP).tolist():
            found, truth = detections[row], truths[column]
            if not truth["iscrowd"]:
                overlaps[row, column] = min(overlaps[row, column], _boundary_overlap(found, truth))
        return overlaps


def _boundary_overlap(*shapes: dict[str, Any]) -> float:
    """The IoU of two boundaries; each is drawn once and kept with its shape."""
    for shape in shapes:
        if "boundary" not in shape:
            shape["boundary"] = inner_boundary(rle.decode(shape["segmentation"]))
    first, second = (shape["boundary"] for shape in shapes)
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0


def inner_boundary(mask: UInt8[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """The pixels of a mask that are near its outline; where the image cuts a mask off, that is outline too."""
    reach = max(1, round(REACH * math.hypot(*mask.shape)))
    padded = cv2.copyMakeBorder(np.ascontiguousarray(mask), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inside = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=reach)[1:-1, 1:-1]
    return (mask > 0) & (inside == 0)
