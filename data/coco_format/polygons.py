"""The outlines of many objects in a few flat arrays: polygons as the file has them."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from ...formats.segmentations import FlatPolygons
from ..polygons import PolygonMask
from .masks import MaskCollector, MaskTable

_AT_ONCE = 100_000
"""Objects whose points are put in order together: the positions of all would take more memory than the points."""


@dataclass(frozen=True, slots=True, eq=False)
class PolygonMaskTable:
    """Outlines by number. Flat arrays, which processes share; an object given as run lengths keeps those."""

    points: Float32[ndarray, "t 2"]
    polygon_starts: Int64[ndarray, " p1"]
    """Where in ``points`` each polygon begins."""
    object_starts: Int64[ndarray, " n1"]
    """Where in ``polygon_starts`` the polygons of each object begin."""
    bitmaps: MaskTable
    bitmap_rows: Int64[ndarray, " n"]
    """The row in ``bitmaps`` of an object that has no polygons."""

    def decode(self, rows: Iterable[int], size: tuple[int, int]) -> tuple[PolygonMask, ...]:
        """Return the outlines of some objects of one image of this (height, width)."""
        return tuple(self._outline(row, size) for row in rows)

    def _outline(self, row: int, size: tuple[int, int]) -> PolygonMask:
        starts = self.polygon_starts[self.object_starts[row] : self.object_starts[row + 1] + 1]
        if len(starts) > 1:
            return PolygonMask.of_polygons([self.points[first:last] for first, last in itertools.pairwise(starts)])
        return PolygonMask.of_bitmap(self.bitmaps.decode([self.bitmap_rows[row].item()], size)[0])


class PolygonCollector:
    """Collects polygons in any order for a :class:`PolygonMaskTable`."""

    def __init__(self, count: int) -> None:
        self._points = [np.zeros((0, 2), np.float32)]
        self._lengths = [np.zeros(0, np.int64)]
        self._indices = [np.zeros(0, np.int64)]
        self._polygons_of_object = np.zeros(count, np.int64)
        self._points_of_object = np.zeros(count, np.int64)

    def add(self, indices: Int64[ndarray, " k"], polygons: FlatPolygons) -> None:
        """Keep the polygons of the objects with these indices."""
        self._points.append(polygons.points.astype(np.float32))
        self._lengths.append(polygons.lengths)
        self._indices.append(indices)
        self._polygons_of_object[indices] = polygons.counts
        self._points_of_object[indices] = polygons.points_by_object()

    def table(self, chosen: Int64[ndarray, " k"], bitmaps: MaskCollector) -> PolygonMaskTable:
        """Return the outlines of the chosen objects, in their order; ``bitmaps`` has those without polygons."""
        collected = np.concatenate(self._indices)
        points = np.concatenate(self._points)
        self._points.clear()
        points = _take_runs(points, self._points_of_object, collected, chosen)
        lengths = _take_runs(np.concatenate(self._lengths), self._polygons_of_object, collected, chosen)
        counts = self._polygons_of_object[chosen]
        drawn = counts == 0
        return PolygonMaskTable(
            points, _starts(lengths), _starts(counts), bitmaps.table(chosen[drawn]), np.cumsum(drawn) - 1
        )


def _starts(lengths: Int64[ndarray, " k"]) -> Int64[ndarray, " k1"]:
    """Return where runs of these lengths begin, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)])


def _take_runs(
    values: ndarray, lengths: Int64[ndarray, " n"], order: Int64[ndarray, " m"], chosen: Int64[ndarray, " k"]
) -> ndarray:
    """Return the runs of the chosen objects out of ``values``, which has those of the objects in ``order``.

    ``lengths`` says how long each object's run is.
    """
    begins = np.zeros(len(lengths), np.int64)
    begins[order] = _starts(lengths[order])[:-1]
    taken = np.empty((int(lengths[chosen].sum()), *values.shape[1:]), values.dtype)
    end = 0
    for first in range(0, len(chosen), _AT_ONCE):
        some = chosen[first : first + _AT_ONCE]
        offsets = _starts(lengths[some])
        positions = np.arange(offsets[-1]) + np.repeat(begins[some] - offsets[:-1], lengths[some])
        taken[end : end + len(positions)] = values[positions]
        end += len(positions)
    return taken
