"""The visible part of objects after a transform or a crop."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from ..box_clipping import visible_rows
from ..object_fields import OBJECT_FIELDS, MaskField, Window
from ..objects import Objects


def keep_visible(objects: Objects) -> Objects:
    """Drop objects with an empty box; the boxes must be clipped to the image."""
    rows = visible_rows(objects.boxes)
    return objects if len(rows) == len(objects) else objects[rows]


def fit_boxes_to_masks(objects: Objects, fitted: Bool[ndarray, " n"], size: tuple[int, int]) -> Objects:
    """Set the box of each object that is to be ``fitted`` to the visible part of its mask, and drop invisible objects.

    ``size`` is the (height, width) of the image. The other objects keep their boxes.
    """
    boxes = _visible_boxes(objects, Window(0, 0, size[1], size[0]))
    return keep_visible(objects.replace_unchecked(boxes=np.where(fitted[:, None], boxes, objects.boxes)))


def crop_objects(objects: Objects, window: Window) -> Objects:
    """Return the objects after the image was cropped to a window; invisible objects are dropped.

    An object with a mask gets the box of its visible part; other boxes are clipped.
    """
    boxes, cropped = _visible_boxes(objects, window), objects.crop(window)
    boxes = np.where(has_visible_mask(objects)[:, None], boxes, cropped.boxes)
    return keep_visible(cropped.replace_unchecked(boxes=boxes))


def has_visible_mask(objects: Objects) -> Bool[ndarray, " n"]:
    """Return which objects have a non-empty mask; an object with an empty mask keeps its annotated box."""
    masks = _masks_of(objects)
    return np.zeros(len(objects), bool) if masks is None else masks[0].has_pixels(masks[1])


def _visible_boxes(objects: Objects, window: Window) -> Float32[ndarray, "n 4"]:
    """Return the box of the part of each mask inside a window, in its pixels; zeros for an empty part or no masks."""
    masks = _masks_of(objects)
    return np.zeros_like(objects.boxes) if masks is None else masks[0].visible_boxes(masks[1], window)


def _masks_of(objects: Objects) -> tuple[MaskField, Any] | None:
    """Return the first field that holds masks, and its value; None if there are no masks."""
    for name, value in objects.fields.items():
        field = OBJECT_FIELDS[name]
        if isinstance(field, MaskField):
            return field, value
    return None
