"""COCO's ``segmentation`` of an object, checked before native code sees it: some would end the process.

A point far away makes pycocotools draw an outline beyond its memory, and four numbers are taken for a box. A training
set has a million polygons, so those of many objects are also checked at once, as flat arrays.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from .checks import Problem
from .rle import rle_problem

FEWEST_NUMBERS = 6
"""A polygon has three points."""
FARTHEST = 1.5
"""How far from the middle of its image a point may be, in widths and heights of the image."""
UPSAMPLING = 5
"""COCO's rasterizer rounds points to a fifth of a pixel."""

Polygons = list[list[int | float]]


def segmentation_problem(segmentation: Any, size: tuple[int, int]) -> Problem | None:
    """Return what is wrong with a list of polygons (x, y, x, y ... in pixels) or with run lengths.

    ``size`` is the (height, width) of the image.
    """
    if segmentation is None or segmentation == []:
        return Problem("no-mask", "has no segmentation")
    if isinstance(segmentation, dict):
        what = rle_problem(segmentation, size)
        return None if what is None else Problem("bad-run-lengths", f"has a segmentation that {what}")
    if not isinstance(segmentation, list):
        what = f"has the segmentation {segmentation!r:.80}, which is neither polygons nor run lengths"
        return Problem("bad-polygon", what)
    for polygon in segmentation:
        what = _polygon_problem(polygon, size)
        if what is not None:
            return Problem("bad-polygon", f"has a polygon {what}")
    return None


def _polygon_problem(polygon: Any, size: tuple[int, int]) -> str | None:
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        return f"that is no list of numbers: {polygon!r:.80}"
    if len(polygon) % 2:
        return f"of {len(polygon)} numbers; points have two each"
    if len(polygon) < FEWEST_NUMBERS:
        return f"of {len(polygon)} numbers; an outline needs three points, which are {FEWEST_NUMBERS}"
    try:
        points = np.array(polygon, np.float64).reshape(-1, 2)
    except OverflowError:
        return f"that is no list of numbers that can be computed with: {polygon!r:.80}"
    extent = np.array(size[::-1])
    near = np.abs(points - extent / 2) <= FARTHEST * extent
    if near.all():
        return None
    if not np.isfinite(points).all():
        return "with a coordinate that is not finite"
    x, y = points[~near.all(axis=1)][0]
    return f"that leaves its image by more than the image's own size, at ({x:g}, {y:g})"


@dataclass(frozen=True, slots=True, eq=False)
class FlatPolygons:
    """The polygons of many objects, one after the other."""

    points: Float64[ndarray, "t 2"]
    lengths: Int64[ndarray, " p"]
    """How many points each polygon has."""
    counts: Int64[ndarray, " n"]
    """How many polygons each object has."""

    @classmethod
    def of(cls, objects: Sequence[Polygons]) -> "FlatPolygons":
        """Flatten polygons that have two numbers a point."""
        polygons = list(itertools.chain.from_iterable(objects))
        counts = np.fromiter(map(len, objects), np.int64, len(objects))
        numbers = np.fromiter(map(len, polygons), np.int64, len(polygons))
        values = np.fromiter(itertools.chain.from_iterable(polygons), np.float64, int(numbers.sum()))
        return cls(values.reshape(-1, 2), numbers // 2, counts)

    def points_by_object(self) -> Int64[ndarray, " n"]:
        """Return how many points each object has."""
        objects = np.repeat(np.arange(len(self.counts)), self.counts)
        return np.bincount(objects, weights=self.lengths, minlength=len(self.counts)).astype(np.int64)

    def any_by_object(self, of_polygons: Bool[ndarray, " p"]) -> Bool[ndarray, " n"]:
        """Return of which objects any polygon is marked."""
        marked = np.zeros(len(self.counts), bool)
        marked[np.repeat(np.arange(len(self.counts)), self.counts)[of_polygons]] = True
        return marked


def well_formed(objects: Sequence[Polygons]) -> Bool[ndarray, " n"]:
    """Return which objects have polygons, each of three points or more and of two numbers a point."""
    counts = np.fromiter(map(len, objects), np.int64, len(objects))
    numbers = np.fromiter(map(len, itertools.chain.from_iterable(objects)), np.int64, int(counts.sum()))
    formed = counts > 0
    formed[np.repeat(np.arange(len(objects)), counts)[(numbers % 2 != 0) | (numbers < FEWEST_NUMBERS)]] = False
    return formed


def near_images(polygons: FlatPolygons, sizes: Int64[ndarray, "n 2"]) -> Bool[ndarray, " n"]:
    """Return of which objects no point is too far from the image, of this (height, width), to be drawn."""
    size_of_polygon = np.repeat(sizes, polygons.counts, axis=0)
    extents = np.repeat(size_of_polygon[:, ::-1], polygons.lengths, axis=0)
    far = ~np.all(np.abs(polygons.points - extents / 2) <= FARTHEST * extents, axis=1)
    return ~polygons.any_by_object(_any_by_polygon(far, polygons.lengths))


def surely_fill_pixels(polygons: FlatPolygons, sizes: Int64[ndarray, "n 2"]) -> Bool[ndarray, " n"]:
    """Return which objects COCO's rasterizer certainly gives a pixel; of the others only drawing them tells.

    The rasterizer fills a column of pixels between the first and the second place at which the outline crosses the
    middle of the column, the third and the fourth, and so on; it rounds these places to whole pixels. So an object has
    a pixel if, in the column in the middle of one of its polygons, two such places are clearly farther apart.
    """
    size_of_polygon = np.repeat(sizes, polygons.counts, axis=0)
    first = np.cumsum(polygons.lengths) - polygons.lengths
    starts = np.trunc(UPSAMPLING * polygons.points + 0.5)
    following = np.arange(1, len(starts) + 1)
    following[first + polygons.lengths - 1] = first
    ends = starts[following]
    x = starts[:, 0]
    middles = (np.minimum.reduceat(x, first) + np.maximum.reduceat(x, first)) / 2 if len(first) else first
    columns = np.clip(middles // UPSAMPLING, 0, size_of_polygon[:, 1] - 1)
    lines = np.repeat(columns * UPSAMPLING + UPSAMPLING / 2, polygons.lengths)
    crossing = np.flatnonzero((x < lines) != (ends[:, 0] < lines))
    polygon_of_edge = np.repeat(np.arange(len(first)), polygons.lengths)[crossing]
    from_, to = starts[crossing], ends[crossing]
    y = from_[:, 1] + (lines[crossing] - from_[:, 0]) * (to[:, 1] - from_[:, 1]) / (to[:, 0] - from_[:, 0])
    y = y.clip(0, UPSAMPLING * size_of_polygon[polygon_of_edge, 0])
    order = np.lexsort((y, polygon_of_edge))  # a closed outline crosses a line an even number of times
    upper, lower = y[order].reshape(-1, 2).T
    # Rounding moves each place by less than a pixel and a half.
    filled = np.zeros(len(first), bool)
    filled[polygon_of_edge[order][::2][lower - upper > 2 * UPSAMPLING]] = True
    return polygons.any_by_object(filled)


def _any_by_polygon(of_points: Bool[ndarray, " t"], lengths: Int64[ndarray, " p"]) -> Bool[ndarray, " p"]:
    """Return of which polygons any point is marked."""
    marked = np.zeros(len(lengths), bool)
    marked[np.repeat(np.arange(len(lengths)), lengths)[of_points]] = True
    return marked
