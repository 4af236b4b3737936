"""Clipping boxes to the borders of their images."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from .report import DataReport

MARGIN = 1e-3
"""Pixels. What reaches no further into an image than this is taken for the rounding of a border."""


def clip_boxes_to_images(
    boxes: Float64[ndarray, "n 4"],
    sizes: Int64[ndarray, "n 2"],
    id_of: Callable[[int], int | str],
    *,
    report: DataReport,
    min_box: float,
) -> tuple[Float64[ndarray, "n 4"], Bool[ndarray, " n"]]:
    """Return boxes (xyxy) clipped to their images of ``sizes`` (height, width), and which of them can be learned from.

    A box that lies outside, or has a side below ``min_box`` pixels, cannot; the report counts it as skipped under its
    ``id_of``, and a box that was clipped as such.
    """
    clipped = np.clip(boxes, 0, sizes[:, [1, 0, 1, 0]])
    sides = clipped[:, 2:] - clipped[:, :2]
    kept = np.ones(len(boxes), bool)
    for case, rejected in (
        ("outside-box", (sides <= 0).any(axis=1)),
        ("tiny-box", (sides < min_box).any(axis=1)),
    ):
        for index in np.flatnonzero(kept & rejected).tolist():
            report.skip("annotations", case, id_of(index))
        kept &= ~rejected
    for index in np.flatnonzero(kept & (clipped != boxes).any(axis=1)).tolist():
        report.note("clipped-box", id_of(index))
    return clipped, kept


def visible_rows(boxes: Float32[ndarray, "n 4"]) -> Int64[ndarray, " k"]:
    """Return the numbers of the boxes, clipped to their image already, that show anything of it.

    A box that a transform leaves or makes smaller than a pixel is kept, as torchvision and detectron2 keep it: a data
    set's ``min_box`` is in original pixels. What is dropped is a box that ends at a border and is left with a side of
    some hundred-thousandths of a pixel, because albumentations has boxes in fractions of the image, in 32 bits.
    """
    return np.flatnonzero((boxes[:, 2:] - boxes[:, :2] > MARGIN).all(axis=1))
