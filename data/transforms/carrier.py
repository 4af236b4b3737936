"""Conversion of the objects of an image to albumentations' targets (boxes, keypoints and masks) and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from ..object_fields import OBJECT_FIELDS, Carried
from ..objects import Objects

_HALF_PIXEL = np.float32(0.5)
_PROBE = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
"""Additional keypoints, which show after a transform whether the image was mirrored."""


class Carrier:
    """Adapter that passes the boxes, points and bitmaps of all fields through an albumentations pipeline.

    Albumentations drops boxes that are not visible; their row numbers, passed as a label field, show which. Integer
    keypoints are pixel centers in albumentations and pixel corners here, so keypoints are shifted by half a pixel on
    the way in and out. Boxes have the same convention.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._parts = [OBJECT_FIELDS[name].carry(value) for name, value in objects.fields.items()]

    def targets(self) -> dict[str, Any]:
        """Return the arguments of the pipeline in addition to the image."""
        boxes, points, masks = (_join(column) for column in self._columns())
        boxes = np.zeros((0, 4), np.float32) if boxes is None else boxes
        targets: dict[str, Any] = {"bboxes": boxes, "rows": np.arange(len(boxes))}
        if points is not None:
            targets["keypoints"] = np.concatenate([points.astype(np.float32, copy=False), _PROBE]) - _HALF_PIXEL
        if masks is not None and len(masks):
            targets["masks"] = masks
        return targets

    def restore(self, result: dict[str, Any]) -> Objects:
        """Return the objects after the pipeline, whose output is ``result``; invisible objects have a box of zeros."""
        size, points, mirrored = result["image"].shape[:2], None, False
        if "keypoints" in result:
            points = result["keypoints"].astype(np.float32) + _HALF_PIXEL
            mirrored = _is_mirrored(points[-len(_PROBE) :])
        masks = np.asarray(result["masks"]) if "masks" in result else np.zeros((0, *size), np.uint8)
        joined = (self._boxes_of_all_rows(result), points, masks)
        parts = zip(*(_split(rows, column) for rows, column in zip(joined, self._columns(), strict=True)), strict=True)
        fields = {
            name: OBJECT_FIELDS[name].restore(value, Carried(*part), size, mirrored)
            for (name, value), part in zip(self._objects.fields.items(), parts, strict=True)
        }
        return self._objects.replace_unchecked(**fields)

    def _columns(self) -> list[list[ndarray | None]]:
        """Return three lists: the boxes, the points and the masks of every field."""
        return [
            [part.boxes for part in self._parts],
            [part.points for part in self._parts],
            [part.masks for part in self._parts],
        ]

    def _boxes_of_all_rows(self, result: dict[str, Any]) -> Float32[ndarray, "n 4"]:
        """Return the transformed boxes in the original order, with zeros for boxes that albumentations dropped."""
        count = sum(len(part.boxes) for part in self._parts if part.boxes is not None)
        boxes = np.zeros((count, 4), np.float32)
        boxes[np.asarray(result["rows"], np.int64)] = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
        return boxes


def _join(arrays: Sequence[ndarray | None]) -> ndarray | None:
    """Concatenate the arrays that are not None; return None if there are none."""
    present = [array for array in arrays if array is not None]
    if len(present) < 2:  # do not copy a single array: bitmaps of many objects are large
        return present[0] if present else None
    return np.concatenate(present)


def _split(rows: ndarray | None, arrays: Sequence[ndarray | None]) -> list[ndarray | None]:
    """Undo :func:`_join`: return the rows that belong to each array, and None for an array that was None."""
    parts: list[ndarray | None] = []
    start = 0
    for array in arrays:
        if array is None or rows is None:
            parts.append(None)
        else:
            parts.append(rows[start : start + len(array)])
            start += len(array)
    return parts


def _is_mirrored(probe: Float32[ndarray, "3 2"]) -> bool:
    """Return whether the transformed axes of the image have the opposite orientation."""
    (right_x, right_y), (down_x, down_y) = probe[1] - probe[0], probe[2] - probe[0]
    return bool(right_x * down_y - right_y * down_x < 0)
