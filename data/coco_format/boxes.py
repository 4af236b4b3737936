"""Checking the boxes of a COCO file, a whole column at a time."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from ...structures import is_number
from ..report import DataReport
from .faults import AnnotationChecks

XYXY_SUSPICION = 0.2
"""A share of boxes leaving their image beyond which they are probably xyxy in place of xywh."""

_ANY_BOX = (0.0, 0.0, 1.0, 1.0)
"""In place of what is no box."""


def check_boxes(checked: AnnotationChecks) -> Float64[ndarray, "n 4"]:
    """The boxes as xyxy; an entry without a usable one is refused."""
    boxes = checked.values("bbox")
    usable = np.array([_is_box(box) for box in boxes], bool)
    values = np.array([box if fine else _ANY_BOX for box, fine in zip(boxes, usable, strict=True)], np.float64)
    values = values.reshape(-1, 4)
    shorter_sides = values[:, 2:].min(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        corners = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:]], axis=1)
    finite = np.isfinite(np.abs(corners).max(axis=1))
    checked.reject_where(~usable, "malformed-box", lambda e: f"bbox must be four numbers, got {e.get('bbox')!r:.80}")
    checked.reject_where(~finite, "non-finite-box", lambda e: f"bbox {e['bbox']} is not finite")
    checked.reject_where(shorter_sides < 0, "negative-box", lambda e: f"bbox {e['bbox']} has a negative side")
    checked.reject_where(shorter_sides == 0, "empty-box", lambda e: f"bbox {e['bbox']} has no area")
    return corners


def suspect_corners(corners: Float64[ndarray, "n 4"], sizes: Int64[ndarray, "n 2"], report: DataReport) -> None:
    """Warn where so many boxes leave their image, of (height, width), that their sizes must be corners."""
    leaving = np.maximum(-corners, corners - sizes[:, [1, 0, 1, 0]]).max(axis=1, initial=0) > 1
    if len(corners) and (share := leaving.mean()) > XYXY_SUSPICION:
        report.warnings.append(
            f"warning: {share:.0%} of the boxes leave their image by more than a pixel; "
            "COCO's are x, y, width, height: are these x1, y1, x2, y2?"
        )


def _is_box(value: Any) -> bool:
    """Whether it is a list of four numbers, not of text or truth values."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
