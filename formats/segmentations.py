"""Checks of COCO's ``segmentation`` of an object; native code would crash on some invalid ones.

A point far outside the image makes pycocotools write out of bounds, and a polygon of four numbers is taken for a box. A
training set has a million polygons, so there are also vectorized checks of the polygons of many objects.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from .checks import Problem
from .rle import are_valid_masks, decode_mask, encode_segmentation, rle_problem

FEWEST_NUMBERS = 6
"""Minimum numbers of a polygon: three points."""
FARTHEST = 1.5
"""Maximum distance of a point from the center of its image, in widths and heights of the image."""
UPSAMPLING = 5
"""COCO's rasterizer rounds points to 1/5 pixel."""

Polygons = list[list[int | float]]


def segmentation_problem(segmentation: Any, size: tuple[int, int]) -> Problem | None:
    """Check a segmentation: a list of polygons (x, y, x, y ... in pixels), or RLE.

    ``size`` is the (height, width) of the image. Returns None if the segmentation is valid.
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
        return f"that is not a list of numbers: {polygon!r:.80}"
    if len(polygon) % 2:
        return f"of {len(polygon)} numbers; points have two each"
    if len(polygon) < FEWEST_NUMBERS:
        return f"of {len(polygon)} numbers; an outline needs three points, which are {FEWEST_NUMBERS}"
    try:
        points = np.array(polygon, np.float64).reshape(-1, 2)
    except OverflowError:
        return f"with a number that is too large: {polygon!r:.80}"
    extent = np.array(size[::-1])
    near = np.abs(points - extent / 2) <= FARTHEST * extent
    if near.all():
        return None
    if not np.isfinite(points).all():
        return "with a coordinate that is not finite"
    x, y = points[~near.all(axis=1)][0]
    return f"that leaves its image by more than the image's own size, at ({x:g}, {y:g})"


def box_of_segmentation(segmentation: Any, size: tuple[int, int]) -> list[float] | None:
    """Return the box (x, y, width, height) that encloses a mask; None if the mask is not valid or covers no pixel.

    ``size`` is the (height, width) of the image.
    """
    if segmentation_problem(segmentation, size) is not None:
        return None
    if isinstance(segmentation, list):
        points = np.concatenate([np.array(polygon, np.float64).reshape(-1, 2) for polygon in segmentation])
        (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return [x1, y1, x2 - x1, y2 - y1]
    mask = decode_mask(encode_segmentation(segmentation, size))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)).tolist() for axis in (1, 0))
    if not rows:
        return None
    return [float(columns[0]), float(rows[0]), float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1)]


def are_valid_segmentations(segmentations: Sequence[Any], sizes: Int64[ndarray, "n 2"]) -> bool:
    """Return whether all segmentations are certainly valid; if not, :func:`segmentation_problem` checks one of them.

    ``sizes`` has the (height, width) of the image of each segmentation.
    """
    is_rle = np.array([isinstance(segmentation, dict) for segmentation in segmentations], bool)
    if not are_valid_masks(list(itertools.compress(segmentations, is_rle)), sizes[is_rle]).all():
        return False
    objects = list(itertools.compress(segmentations, ~is_rle))
    if not set(map(type, objects)) <= {list}:
        return False
    polygons = list(itertools.chain.from_iterable(objects))
    if not set(map(type, polygons)) <= {list}:
        return False
    if not set(map(type, itertools.chain.from_iterable(polygons))) <= {int, float}:
        return False
    if not is_well_formed(objects).all():
        return False
    try:
        flat = FlatPolygons.of(objects)
    except OverflowError:
        return False
    return bool(is_near_image(flat, sizes[~is_rle]).all())


@dataclass(frozen=True, slots=True, eq=False)
class FlatPolygons:
    """The polygons of many objects, concatenated."""

    points: Float64[ndarray, "t 2"]
    """(x, y) of all points, in pixels."""
    lengths: Int64[ndarray, " p"]
    """The number of points of each polygon."""
    counts: Int64[ndarray, " n"]
    """The number of polygons of each object."""

    @classmethod
    def of(cls, objects: Sequence[Polygons]) -> "FlatPolygons":
        """Flatten the polygons of each object; every polygon must have an even number of values."""
        polygons = list(itertools.chain.from_iterable(objects))
        counts = np.fromiter(map(len, objects), np.int64, len(objects))
        numbers = np.fromiter(map(len, polygons), np.int64, len(polygons))
        values = np.fromiter(itertools.chain.from_iterable(polygons), np.float64, int(numbers.sum()))
        return cls(values.reshape(-1, 2), numbers // 2, counts)

    def points_by_object(self) -> Int64[ndarray, " n"]:
        """Return the number of points of each object."""
        objects = np.repeat(np.arange(len(self.counts)), self.counts)
        return np.bincount(objects, weights=self.lengths, minlength=len(self.counts)).astype(np.int64)

    def any_by_object(self, selected: Bool[ndarray, " p"]) -> Bool[ndarray, " n"]:
        """Return which objects have at least one selected polygon; ``selected`` has one value per polygon."""
        has_selected = np.zeros(len(self.counts), bool)
        has_selected[np.repeat(np.arange(len(self.counts)), self.counts)[selected]] = True
        return has_selected


def is_well_formed(objects: Sequence[Polygons]) -> Bool[ndarray, " n"]:
    """Return which objects have at least one polygon, all with an even number of values and at least three points."""
    counts = np.fromiter(map(len, objects), np.int64, len(objects))
    numbers = np.fromiter(map(len, itertools.chain.from_iterable(objects)), np.int64, int(counts.sum()))
    formed = counts > 0
    formed[np.repeat(np.arange(len(objects)), counts)[(numbers % 2 != 0) | (numbers < FEWEST_NUMBERS)]] = False
    return formed


def is_near_image(polygons: FlatPolygons, sizes: Int64[ndarray, "n 2"]) -> Bool[ndarray, " n"]:
    """Return which objects have no point too far outside their image to be rasterized.

    ``sizes`` has the (height, width) of each object's image.
    """
    size_of_polygon = np.repeat(sizes, polygons.counts, axis=0)
    extents = np.repeat(size_of_polygon[:, ::-1], polygons.lengths, axis=0)
    far = ~np.all(np.abs(polygons.points - extents / 2) <= FARTHEST * extents, axis=1)
    return ~polygons.any_by_object(_any_by_polygon(far, polygons.lengths))


def surely_covers_pixels(polygons: FlatPolygons, sizes: Int64[ndarray, "n 2"]) -> Bool[ndarray, " n"]:
    """Return which objects certainly cover a pixel in COCO's rasterizer; the others have to be rasterized to find out.

    The rasterizer fills each column of pixels between the first and second, third and fourth ... point where the
    outline crosses the center line of the column, and rounds these points to whole pixels. So an object covers a pixel
    if, in the middle column of one of its polygons, such a pair of points is more than the rounding apart. ``sizes``
    has the (height, width) of each object's image.
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
    first_point, second_point = starts[crossing], ends[crossing]
    step = second_point - first_point
    y = first_point[:, 1] + (lines[crossing] - first_point[:, 0]) * step[:, 1] / step[:, 0]
    y = y.clip(0, UPSAMPLING * size_of_polygon[polygon_of_edge, 0])
    order = np.lexsort((y, polygon_of_edge))  # a closed outline crosses a line an even number of times
    upper, lower = y[order].reshape(-1, 2).T
    # Rounding moves each point by less than one and a half pixels.
    filled = np.zeros(len(first), bool)
    filled[polygon_of_edge[order][::2][lower - upper > 2 * UPSAMPLING]] = True
    return polygons.any_by_object(filled)


def _any_by_polygon(selected: Bool[ndarray, " t"], lengths: Int64[ndarray, " p"]) -> Bool[ndarray, " p"]:
    """Return which polygons have at least one selected point; ``selected`` has one value per point."""
    has_selected = np.zeros(len(lengths), bool)
    has_selected[np.repeat(np.arange(len(lengths)), lengths)[selected]] = True
    return has_selected
