"""Corrections of boxes, masks and areas, and the removal of objects that are annotated twice."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....data.box_clipping import MOST
from ....formats import encode_segmentation, segmentation_problem
from ....formats.rle import mask_areas
from ..checks.boxes import AREA_PIXELS, AREA_TOLERANCE, SAME_BOX, looks_like_corners, overlapping_pairs, polygon_scale
from ..file_objects import FileObjects
from .document import Document, Entry, is_box

DIGITS = 4
"""The number of decimals of computed coordinates."""


def correct_conventions(document: Document) -> None:
    """Convert boxes that are fractions or corners to x, y, width, height in pixels, and resize polygons, if all are."""
    objects = document.tabulate()
    if not len(objects.rows):
        return
    finite = np.isfinite(objects.corners).all(axis=1)
    if finite.any() and (objects.corners[finite].max(axis=1) <= 1).mean() > MOST:
        for entry, (height, width) in _rows(document, objects):
            if is_box(entry.get("bbox")):
                x, y, w, h = entry["bbox"]
                _set_box(document, "fraction-boxes", entry, (x * width, y * height, w * width, h * height))
    elif looks_like_corners(objects):
        for entry, _ in _rows(document, objects):
            if is_box(entry.get("bbox")):
                x1, y1, x2, y2 = entry["bbox"]
                _set_box(document, "corner-boxes", entry, (x1, y1, x2 - x1, y2 - y1))
    scale = polygon_scale(document.tabulate())
    if scale is not None:
        for entry, _ in _rows(document, objects):
            if isinstance(polygons := entry.get("segmentation"), list):
                resized = [[round(value / scale, DIGITS) for value in polygon] for polygon in polygons]
                document.set("unscaled-polygons", entry, "segmentation", resized)


def _rows(document: Document, objects: FileObjects) -> list[tuple[Entry, tuple[int, int]]]:
    """Return each readable annotation with the (height, width) of its image."""
    entries = [document.annotations[row] for row in objects.rows.tolist()]
    return [(entry, document.size_of(entry)) for entry in entries]


def _set_box(document: Document, case: str, entry: Entry, box: Sequence[float | int]) -> None:
    values = [round(value, DIGITS) for value in box]
    if values != entry.get("bbox"):
        document.set(case, entry, "bbox", values)


def correct_polygons(document: Document) -> None:
    """Remove polygons that cannot be rasterized; run lengths are left as they are."""
    for entry in document.annotations:
        mask, size = entry.get("segmentation"), document.size_of(entry)
        if isinstance(mask, list):
            kept = [polygon for polygon in mask if segmentation_problem([polygon], size) is None]
            if kept != mask:
                document.set("bad-polygon", entry, "segmentation", kept)


def ignore_unmasked(document: Document) -> None:
    """Make the objects without a usable mask ignore regions, if most objects have masks.

    They can be neither learned as objects with a mask nor as background.
    """
    given = [bool(entry.get("segmentation")) for entry in document.annotations]
    has_masks = sum(given) > len(given) / 2
    for entry in document.annotations:
        problem = segmentation_problem(entry.get("segmentation"), document.size_of(entry))
        if problem is None:
            continue
        if not has_masks:
            entry.pop("segmentation", None)  # null and [] stand for no mask
            continue
        x, y, width, height = entry["bbox"]
        outline = [x, y, x + width, y, x + width, y + height, x, y + height]
        document.set(problem.case, entry, "segmentation", [outline])
        document.set(problem.case, entry, "iscrowd", 1)


def correct_boxes(document: Document) -> None:
    """Clip boxes to their image; take those that cannot be used from the polygons, and remove what has neither."""
    for entry in document.annotations:
        box = entry.get("bbox")
        if is_box(box):
            x, y, width, height = entry["bbox"]
            if width < 0 or height < 0:
                flipped = (min(x, x + width), min(y, y + height), abs(width), abs(height))
                _set_box(document, "negative-box", entry, flipped)
        if not _is_usable(document, entry) and (extent := _extent(entry.get("segmentation"))) is not None:
            _set_box(document, "box-from-mask", entry, extent)
        if is_box(entry.get("bbox")):
            _clip(document, entry)
    document.keep("annotations", lambda entry: _is_usable(document, entry), "unusable-box")


def _is_usable(document: Document, entry: Entry) -> bool:
    return is_box(entry.get("bbox")) and min(entry["bbox"][2:]) >= max(document.min_box, 1e-3)


def _clip(document: Document, entry: Entry) -> None:
    height, width = document.size_of(entry)
    x, y, w, h = entry["bbox"]
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if (x1, y1) != (x, y) or x2 < x + w or y2 < y + h:
        _set_box(document, "clipped-box", entry, (x1, y1, x2 - x1, y2 - y1))


def _extent(mask: Any) -> Sequence[float | int] | None:
    """Return x, y, width and height of the points of polygons; None for any other mask."""
    if not isinstance(mask, list) or not mask:
        return None
    x, y = [value for polygon in mask for value in polygon[::2]], [value for polygon in mask for value in polygon[1::2]]
    return min(x), min(y), max(x) - min(x), max(y) - min(y)


def correct_areas(document: Document) -> None:
    """Compute areas that are missing, invalid or larger than their box: those of the masks, otherwise of the boxes."""
    for entry in document.annotations:
        area, limit = entry.get("area"), entry["bbox"][2] * entry["bbox"][3]
        is_valid = isinstance(area, int | float) and not isinstance(area, bool) and math.isfinite(area) and area >= 0
        if is_valid and area <= AREA_TOLERANCE * limit + AREA_PIXELS:
            continue
        case = "computed-area" if area is None else "area-above-box"
        document.set(case, entry, "area", round(_area(document, entry), DIGITS))


def _area(document: Document, entry: Entry) -> float:
    limit = float(entry["bbox"][2] * entry["bbox"][3])
    mask, size = entry.get("segmentation"), document.size_of(entry)
    if segmentation_problem(mask, size) is not None:
        return limit
    return min(float(mask_areas([encode_segmentation(mask, size)])[0]), AREA_TOLERANCE * limit)


def remove_repeated_objects(document: Document) -> None:
    """Remove the later of two objects of one class with nearly the same box in an image."""
    objects = document.tabulate()
    groups = np.unique(np.stack([objects.images, objects.categories], axis=1), axis=0, return_inverse=True)[1]
    single = np.flatnonzero(~objects.crowd)
    pairs = overlapping_pairs(groups.reshape(-1)[single].astype(np.int64), objects.corners[single], SAME_BOX)
    repeated = {id(document.annotations[objects.rows[single[later]]]) for later in pairs[:, 1].tolist()}
    document.keep("annotations", lambda entry: id(entry) not in repeated, "repeated-object")
