"""The polygon masks of many objects in a few flat arrays."""

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
"""Number of objects to reorder at a time; index arrays for all objects would take more memory than their points."""


@dataclass(frozen=True, slots=True, eq=False)
class PolygonMaskTable:
    """The polygon masks of many objects, in flat arrays that processes share; masks given as RLE are stored as RLE."""

    points: Float32[ndarray, "t 2"]
    """(x, y) of the points of all polygons, in pixels."""
    polygon_starts: Int64[ndarray, " p1"]
    """The position in ``points`` at which each polygon starts."""
    object_starts: Int64[ndarray, " n1"]
    """The position in ``polygon_starts`` at which the polygons of each object start."""
    bitmaps: MaskTable
    """The masks of the objects without polygons."""
    bitmap_rows: Int64[ndarray, " n"]
    """The row in ``bitmaps`` of each object without polygons; meaningless for the other objects."""

    def decode(self, rows: Iterable[int], size: tuple[int, int]) -> tuple[PolygonMask, ...]:
        """Return the polygon masks of some objects of one image of ``size`` (height, width)."""
        return tuple(self._polygon_mask(row, size) for row in rows)

    def _polygon_mask(self, row: int, size: tuple[int, int]) -> PolygonMask:
        starts = self.polygon_starts[self.object_starts[row] : self.object_starts[row + 1] + 1]
        if len(starts) > 1:
            return PolygonMask.of_polygons([self.points[first:last] for first, last in itertools.pairwise(starts)])
        return PolygonMask.of_bitmap(self.bitmaps.decode([self.bitmap_rows[row].item()], size)[0])


class PolygonCollector:
    """Builder of a :class:`PolygonMaskTable`, which accepts polygons in any order."""

    def __init__(self, count: int) -> None:
        self._points = [np.zeros((0, 2), np.float32)]
        self._lengths = [np.zeros(0, np.int64)]
        self._indices = [np.zeros(0, np.int64)]
        self._polygons_of_object = np.zeros(count, np.int64)
        self._points_of_object = np.zeros(count, np.int64)

    def add(self, indices: Int64[ndarray, " k"], polygons: FlatPolygons) -> None:
        """Store the polygons of the objects with these indices."""
        self._points.append(polygons.points.astype(np.float32))
        self._lengths.append(polygons.lengths)
        self._indices.append(indices)
        self._polygons_of_object[indices] = polygons.counts
        self._points_of_object[indices] = polygons.points_by_object()

    def table(self, chosen: Int64[ndarray, " k"], bitmaps: MaskCollector) -> PolygonMaskTable:
        """Return the table of the chosen objects, in their order; ``bitmaps`` has the masks given as RLE."""
        collected = np.concatenate(self._indices)
        points = np.concatenate(self._points)
        self._points.clear()
        points = _take_runs(points, self._points_of_object, collected, chosen)
        lengths = _take_runs(np.concatenate(self._lengths), self._polygons_of_object, collected, chosen)
        counts = self._polygons_of_object[chosen]
        is_bitmap = counts == 0
        return PolygonMaskTable(
            points, _starts(lengths), _starts(counts), bitmaps.table(chosen[is_bitmap]), np.cumsum(is_bitmap) - 1
        )


def _starts(lengths: Int64[ndarray, " k"]) -> Int64[ndarray, " k1"]:
    """Return the start of each of a sequence of adjacent runs of these lengths, and the end of the last run."""
    return np.concatenate([[0], np.cumsum(lengths)])


def _take_runs(
    values: ndarray, lengths: Int64[ndarray, " n"], order: Int64[ndarray, " m"], chosen: Int64[ndarray, " k"]
) -> ndarray:
    """Return the runs of values of the chosen objects, concatenated.

    ``values`` has the runs of the objects in ``order``, and ``lengths`` has the length of the run of every object.
    """
    begins = np.zeros(len(lengths), np.int64)
    begins[order] = _starts(lengths[order])[:-1]
    taken = np.empty((int(lengths[chosen].sum()), *values.shape[1:]), values.dtype)
    end = 0
    for first in range(0, len(chosen), _AT_ONCE):
        chunk = chosen[first : first + _AT_ONCE]
        offsets = _starts(lengths[chunk])
        positions = np.arange(offsets[-1]) + np.repeat(begins[chunk] - offsets[:-1], lengths[chunk])
        taken[end : end + len(positions)] = values[positions]
        end += len(positions)
    return taken
