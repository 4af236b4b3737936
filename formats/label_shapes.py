"""Boxes, masks and keypoints of objects, as the readers of labeling tools' files collect them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from ..structures import MAX_PIXELS
from .label_values import ShapeError
from .rle import decode_mask, encode_mask, encode_segmentation
from .segmentations import segmentation_problem

Polygons = Sequence[Sequence[float]]
"""Outlines ``x1, y1, x2, y2, ...`` in pixels."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The box, the mask and the keypoints of an object, in pixels; what is None is derived or left out."""

    box: tuple[float, float, float, float] | None = None
    """x1, y1, x2, y2; None: that of the polygons."""
    polygons: Polygons | None = None
    mask: Mapping[str, Any] | None = None
    """The mask in COCO's run-length encoding."""
    crowd: bool = False
    keypoints: Sequence[float] | None = None
    """x, y and visibility (0, 1 or 2) of each keypoint, as indices of pixels."""

    @classmethod
    def of_bitmap(cls, bitmap: Bool[ndarray, "h w"]) -> "Shape":
        """Return the shape of a mask of the size of its image."""
        rows, columns = (np.flatnonzero(bitmap.any(axis=axis)) for axis in (1, 0))
        box = (0.0, 0.0, 0.0, 0.0)
        if len(rows):
            box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        return cls(box, mask=encode_mask(bitmap))

    def numbers(self) -> list[float]:
        """Return all coordinates."""
        polygons = [value for polygon in self.polygons or () for value in polygon]
        return [*(self.box or ()), *polygons, *(self.keypoints or ())]

    def fields(self) -> dict[str, Any]:
        """Return the fields of an entry of ``annotations``."""
        x1, y1, x2, y2 = self._corners()
        entry: dict[str, Any] = {"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int(self.crowd)}
        if self.mask is not None:
            entry["segmentation"] = dict(self.mask)
        elif self.polygons is not None:
            entry["segmentation"] = [list(polygon) for polygon in self.polygons]
        if self.keypoints is not None:
            entry["keypoints"] = list(self.keypoints)
        return entry

    def _corners(self) -> tuple[float, float, float, float]:
        if self.box is not None:
            return self.box
        xs = [value for polygon in self.polygons or () for value in polygon[::2]]
        ys = [value for polygon in self.polygons or () for value in polygon[1::2]]
        return (min(xs), min(ys), max(xs), max(ys)) if xs and ys else (0.0, 0.0, 0.0, 0.0)


def paste(part: Bool[ndarray, "h w"], x: int, y: int, size: tuple[int, int]) -> Bool[ndarray, "H W"]:
    """Return a mask of ``size`` (height, width) with a part at column x and row y; raise ShapeError if it leaves it."""
    height, width = part.shape
    if x < 0 or y < 0 or y + height > size[0] or x + width > size[1] or size[0] * size[1] > MAX_PIXELS:
        what = f"has a mask of {height}x{width} pixels at ({x}, {y}), which leaves its image of {size[0]}x{size[1]}"
        raise ShapeError(what)
    bitmap = np.zeros(size, bool)
    bitmap[y : y + height, x : x + width] = part
    return bitmap


def rasterize(polygons: Polygons, size: tuple[int, int]) -> Bool[ndarray, "h w"]:
    """Return the mask of ``size`` that polygons cover; raise ShapeError if one cannot be used."""
    lists = [list(polygon) for polygon in polygons]
    problem = segmentation_problem(lists, size)
    if problem is not None or size[0] * size[1] > MAX_PIXELS:
        raise ShapeError("has a mask that is too large" if problem is None else problem.what)
    return decode_mask(encode_segmentation(lists, size)).astype(bool)
