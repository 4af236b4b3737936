"""The outlines of many objects in one block of memory: polygons as the file has them."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from ..polygons import PolygonMask
from .masks import MaskTable


@dataclass(frozen=True, slots=True, eq=False)
class PolygonMaskTable:
    """Outlines by number. Flat arrays, which forked workers share; an object given as run lengths keeps those."""

    points: Float32[ndarray, "t 2"]
    polygons: Int64[ndarray, " p1"]  # where in ``points`` each begins
    objects: Int64[ndarray, " n1"]  # where in ``polygons`` each begins
    bitmaps: MaskTable
    places: Int64[ndarray, " n"]  # where in ``bitmaps`` an object is that has no polygons

    @classmethod
    def encode(cls, segmentations: Sequence[tuple[Any, tuple[int, int]]]) -> "PolygonMaskTable":
        """Of pairs of a segmentation, which ``segmentation_problem`` finds nothing wrong with, and its image's (height,
        width)."""
        polygons = [given if isinstance(given, list) else [] for given, _ in segmentations]
        points = [np.array(polygon, np.float32).reshape(-1, 2) for own in polygons for polygon in own]
        drawn = np.array([not own for own in polygons], bool)
        return cls(
            np.concatenate([np.zeros((0, 2), np.float32), *points]),
            np.cumsum([0, *map(len, points)]),
            np.cumsum([0, *map(len, polygons)]),
            MaskTable.encode(pair for pair in segmentations if not isinstance(pair[0], list)),
            np.cumsum(drawn) - 1,
        )

    def decode(self, rows: Iterable[int], size: tuple[int, int]) -> tuple[PolygonMask, ...]:
        """The outlines of some objects of one image of this (height, width)."""
        return tuple(self._outline(row, size) for row in rows)

    def _outline(self, row: int, size: tuple[int, int]) -> PolygonMask:
        starts = self.polygons[self.objects[row] : self.objects[row + 1] + 1]
        if len(starts) > 1:
            return PolygonMask.of_polygons([self.points[first:last] for first, last in itertools.pairwise(starts)])
        return PolygonMask.of_bitmap(self.bitmaps.decode([self.places[row].item()], size)[0])
