"""The field type of masks as polygons."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from ...structures import PolygonMasks, require_one_per_box
from ..polygons import (
    PolygonMask,
    boxes_from_polygon_masks,
    clip_polygon_mask,
    pad_polygon_masks,
    polygon_vertices,
    with_vertices,
)
from .base import Carried, MaskField, Window
from .boxes import resize_boxes, shift_boxes

Polygons = tuple[PolygonMask, ...]


class PolygonField(MaskField[Polygons]):
    """The field type of masks given as polygon edges."""

    def check(self, value: Any, count: int, size: tuple[int, int] | None) -> None:
        require_one_per_box("polygon mask", value, count)

    def select(self, value: Polygons, rows: Int64[ndarray, " k"]) -> Polygons:
        return tuple(value[row] for row in rows.tolist())

    def concatenate(self, values: Sequence[Polygons]) -> Polygons:
        return tuple(mask for masks in values for mask in masks)

    def resize(self, value: Polygons, before: tuple[int, int], after: tuple[int, int]) -> Polygons:
        # An edge is stored as x1, y1, x2, y2, so the arithmetic of boxes applies to it.
        return tuple(mask.with_edges(resize_boxes(mask.edges, before, after)) for mask in value)

    def crop(self, value: Polygons, window: Window) -> Polygons:
        return tuple(clip_polygon_mask(mask, window.size) for mask in _shift(value, -window.left, -window.top))

    def place(self, value: Polygons, left: int, top: int, size: tuple[int, int]) -> Polygons:
        return _shift(value, left, top)

    def carry(self, value: Polygons) -> Carried:
        return Carried(points=polygon_vertices(value))

    def restore(self, value: Polygons, carried: Carried, size: tuple[int, int], mirrored: bool) -> Polygons:
        assert carried.points is not None, "they were carried"
        return with_vertices(value, carried.points)

    def to_tensor(self, value: Polygons) -> PolygonMasks:
        return pad_polygon_masks(value)

    def has_pixels(self, value: Polygons) -> Bool[ndarray, " n"]:
        return np.array([len(mask) > 0 for mask in value], bool)

    def visible_boxes(self, value: Polygons, window: Window) -> Float32[ndarray, "n 4"]:
        return boxes_from_polygon_masks(_shift(value, -window.left, -window.top), window.size)


def _shift(polygon_masks: Polygons, right: int, down: int) -> Polygons:
    return tuple(mask.with_edges(shift_boxes(mask.edges, right, down)) for mask in polygon_masks)
