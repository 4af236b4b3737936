"""The annotations of a COCO file as objects with a box, a label and, where it is wanted, a mask."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from ...ops import segmentation_problem
from ...structures import is_number
from ..box_clipping import clip_boxes_to_images
from .boxes import check_boxes, suspect_corners
from .categories import Categories
from .faults import AnnotationChecks
from .images import ImageTable
from .keys import as_key

BOXES_ONLY = "draw it, or for boxes alone set masks=false and leave out the head's mask branch"
"""What to do about an object without a mask."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """The usable annotations: boxes are xyxy, clipped to their image."""

    rows: Int64[ndarray, " n"]  # where each stands in the file
    images: Int64[ndarray, " n"]  # the place of its image
    boxes: Float32[ndarray, "n 4"]
    labels: Int64[ndarray, " n"]
    crowd: Bool[ndarray, " n"]

    def take(self, chosen: Int64[ndarray, " k"] | Bool[ndarray, " n"]) -> "ObjectTable":
        """Some of them, or the same in another order."""
        return ObjectTable(*(getattr(self, field.name)[chosen] for field in fields(self)))


def check_objects(
    checked: AnnotationChecks, images: ImageTable, categories: Categories, *, min_box: float | None, masks: bool
) -> ObjectTable:
    """The usable ones.

    A side has at least ``min_box`` pixels; None asks nothing of boxes, which then are zeros. ``masks`` asks for a
    usable mask.
    """
    places: Mapping[Any, int] = {identity: place for place, identity in enumerate(images.ids.tolist())}
    owners = np.array([places.get(as_key(owner), -1) for owner in checked.values("image_id")], np.int64)
    labels = np.array([categories.label(identity) for identity in checked.values("category_id")], np.int64)
    crowd = np.array([_crowd_of(entry) for entry in checked.entries], np.int64)
    _check_belonging(checked, owners, labels)
    corners = np.zeros((len(checked), 4)) if min_box is None else check_boxes(checked)
    _check_numbers(checked, crowd)
    if masks:
        _check_masks(checked, images.sizes, owners)
    sound = np.flatnonzero(~checked.faulty)
    if min_box is not None:
        suspect_corners(corners[sound], images.sizes[owners[sound]], checked.report)
    for index in sound[labels[sound] < 0].tolist():
        checked.report.skip("annotations", "other-class", checked.identities[index])
    own = sound[labels[sound] >= 0]
    boxes = corners[own]
    if min_box is not None:
        names = [checked.identities[index] for index in own.tolist()]
        boxes, kept = clip_boxes_to_images(
            boxes, images.sizes[owners[own]], names, report=checked.report, min_box=min_box
        )
        own, boxes = own[kept], boxes[kept]
    return ObjectTable(checked.rows[own], owners[own], boxes.astype(np.float32), labels[own], crowd[own] == 1)


def _check_belonging(checked: AnnotationChecks, owners: Int64[ndarray, " n"], labels: Int64[ndarray, " n"]) -> None:
    """Refuse what is about no image or class of the file."""
    checked.reject_where(
        owners < 0, "unknown-image", lambda e: f"belongs to image {e.get('image_id')!r}, which is not in the file"
    )
    checked.reject_where(
        labels == -2, "unknown-category", lambda e: f"has category {e.get('category_id')!r}, which is not declared"
    )


def _check_numbers(checked: AnnotationChecks, crowd: Int64[ndarray, " n"]) -> None:
    """Refuse what the metric cannot go by; an area may be left out."""
    areas = checked.values("area")
    for identity in itertools.compress(checked.identities, [area is None for area in areas]):
        checked.report.note("computed-area", identity)
    bad_area = np.array([not (area is None or (is_number(area) and 0 <= area < math.inf)) for area in areas], bool)
    checked.reject_where(bad_area, "bad-area", lambda e: f"area must be a number >= 0, got {e['area']!r:.80}")
    checked.reject_where(crowd < 0, "bad-crowd", lambda e: f"iscrowd must be 0 or 1, got {e['iscrowd']!r:.80}")


def _check_masks(checked: AnnotationChecks, sizes: Int64[ndarray, "m 2"], owners: Int64[ndarray, " n"]) -> None:
    """Refuse objects without a usable mask."""
    for index in np.flatnonzero(~checked.faulty).tolist():
        height, width = sizes[owners[index]].tolist()
        fault = segmentation_problem(checked.entries[index].get("segmentation"), (height, width))
        if fault is not None:
            checked.refuse(index, *fault, BOXES_ONLY if fault[0] == "no-mask" else "correct it")


def _crowd_of(entry: dict[str, Any]) -> int:
    """1 for a crowd, 0 for an object, -1 for what is neither: text is true to Python, whatever it says."""
    value = entry.get("iscrowd", 0)
    return int(value) if isinstance(value, int) and value in (0, 1) else -1
