"""COCO's ``segmentation`` of an object, checked before native code sees it: some would end the process.

A point far away makes pycocotools draw an outline beyond its memory, and four numbers are taken for a box.
"""

from typing import Any

import numpy as np

from .rle import rle_problem

FEWEST_NUMBERS = 6
"""Of a polygon: three points."""


def segmentation_problem(segmentation: Any, size: tuple[int, int]) -> tuple[str, str] | None:
    """The case and the description of what is wrong, if anything; ``size`` is the (height, width) of the image.

    A list of polygons, each x, y, x, y ... in pixels, or run lengths.
    """
    if segmentation is None or segmentation == []:
        return "no-mask", "has no segmentation"
    if isinstance(segmentation, dict):
        fault = rle_problem(segmentation, size)
        return None if fault is None else ("bad-run-lengths", f"has a segmentation that {fault}")
    if not isinstance(segmentation, list):
        return "bad-polygon", f"has the segmentation {segmentation!r:.80}, which is neither polygons nor run lengths"
    for polygon in segmentation:
        fault = _polygon_fault(polygon, size)
        if fault is not None:
            return "bad-polygon", f"has a polygon {fault}"
    return None


def _polygon_fault(polygon: Any, size: tuple[int, int]) -> str | None:
    # COCO has a million polygons, so their numbers are looked at all at once.
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
    near = np.abs(points - extent / 2) <= 1.5 * extent
    if near.all():
        return None
    if not np.isfinite(points).all():
        return "with a coordinate that is not finite"
    x, y = points[~near.all(axis=1)][0]
    return f"that leaves its image by more than the image's own size, at ({x:g}, {y:g})"
