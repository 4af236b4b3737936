"""Boxes and the borders of their images."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from .report import DataReport


def clip_boxes_to_images(
    corners: Float64[ndarray, "n 4"],
    sizes: Int64[ndarray, "n 2"],
    id_of: Callable[[int], int | str],
    *,
    report: DataReport,
    min_box: float,
) -> tuple[Float64[ndarray, "n 4"], Bool[ndarray, " n"]]:
    """Return boxes (xyxy) clipped to their images of ``sizes`` (height, width), and which of them to learn from.

    Boxes that lie outside, or have a side below ``min_box`` pixels, are skipped in the report, which calls each box by
    its ``id_of``; boxes that were clipped are noted.
    """
    clipped = np.clip(corners, 0, sizes[:, [1, 0, 1, 0]])
    sides = clipped[:, 2:] - clipped[:, :2]
    kept = np.ones(len(corners), bool)
    for case, unwanted in (
        ("outside-box", (sides <= 0).any(axis=1)),
        ("tiny-box", (sides < min_box).any(axis=1)),
    ):
        for index in np.flatnonzero(kept & unwanted).tolist():
            report.skip("annotations", case, id_of(index))
        kept &= ~unwanted
    for index in np.flatnonzero(kept & (clipped != corners).any(axis=1)).tolist():
        report.note("clipped-box", id_of(index))
    return clipped, kept
