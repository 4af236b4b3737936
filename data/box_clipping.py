"""Clipping of boxes to the borders of their images."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from ..structures import DataError
from .report import MOST, DataReport

MARGIN = 1e-3
"""Pixels: what extends into an image by no more than this is treated as a rounding error at the border."""

SUSPICION = 0.2
"""A warning is given if more than this fraction of the boxes leaves the image, as xyxy boxes do that are read as xywh,
or lies within the first pixel, as fractions of the image's size do."""


def clip_boxes_to_images(
    boxes: Float64[ndarray, "n 4"],
    sizes: Int64[ndarray, "n 2"],
    id_of: Callable[[int], int | str],
    *,
    report: DataReport,
    min_box: float,
) -> tuple[Float64[ndarray, "n 4"], Bool[ndarray, " n"]]:
    """Clip boxes (xyxy) to their images of ``sizes`` (height, width); return them, and which are usable for training.

    A box outside its image, or with a side below ``min_box`` pixels, is unusable and counted as skipped in the report,
    with its annotation id ``id_of(index)``. Clipped boxes are counted as ``clipped-box``.
    """
    clipped = np.clip(boxes, 0, sizes[:, [1, 0, 1, 0]])
    sides = clipped[:, 2:] - clipped[:, :2]
    usable = np.ones(len(boxes), bool)
    for case, rejected in (
        ("outside-box", (sides <= 0).any(axis=1)),
        ("tiny-box", (sides < min_box).any(axis=1)),
    ):
        for index in np.flatnonzero(usable & rejected).tolist():
            report.skip("annotations", case, id_of(index))
        usable &= ~rejected
    for index in np.flatnonzero(usable & (clipped != boxes).any(axis=1)).tolist():
        report.note("clipped-box", id_of(index))
    return clipped, usable


def visible_rows(boxes: Float32[ndarray, "n 4"]) -> Int64[ndarray, " k"]:
    """Return the indices of the boxes that are visible in their image; the boxes must be clipped to it.

    A box smaller than a pixel after a transform is kept, as in torchvision and detectron2: the ``min_box`` of a data
    set is in original pixels. Dropped are boxes outside the image that end up with a tiny side at its border, because
    albumentations stores boxes as float32 fractions of the image.
    """
    return np.flatnonzero((boxes[:, 2:] - boxes[:, :2] > MARGIN).all(axis=1))


def check_box_format(corners: Float64[ndarray, "n 4"], sizes: Int64[ndarray, "n 2"], report: DataReport) -> None:
    """Add a warning to the report if many boxes look like xyxy boxes, or like fractions of the image's size.

    Raises DataError if most boxes look like fractions. ``sizes`` are the (height, width) of the images.
    """
    if not len(corners):
        return
    leaving = np.maximum(-corners, corners - sizes[:, [1, 0, 1, 0]]).max(axis=1) > 1
    if (fraction := leaving.mean()) > SUSPICION:
        report.warnings.append(
            f"warning: {fraction:.0%} of the boxes leave their image by more than a pixel; "
            "COCO boxes are x, y, width, height: are these x1, y1, x2, y2?"
        )
    fraction = (corners.max(axis=1) <= 1).mean()
    what = f"{fraction:.0%} of the boxes lie within the first pixel, as fractions of the image's size do"
    fix = "COCO boxes are in pixels: multiply fractions by the size of the image"
    if fraction > MOST:
        raise DataError(what, fix, case="fraction-boxes", file=report.source)
    if fraction > SUSPICION:
        report.warnings.append(f"warning: {what}; {fix}")
