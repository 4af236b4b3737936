"""What an image shows of its objects after a transform or a crop."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from ..box_clipping import visible_rows
from ..object_fields import OBJECT_FIELDS, MaskField, Window
from ..objects import Objects


def keep_visible(objects: Objects) -> Objects:
    """Return the objects whose boxes are not empty."""
    rows = visible_rows(objects.boxes)
    return objects if len(rows) == len(objects) else objects[rows]


def fit_boxes_to_masks(objects: Objects, fitted: Bool[ndarray, " n"], size: tuple[int, int]) -> Objects:
    """Return the objects that an image of this (height, width) shows, some of them with new boxes.

    The box of one that is to be ``fitted`` becomes that of what the image shows of its mask; the others keep theirs.
    Objects of which nothing is shown are dropped.
    """
    boxes = _visible_boxes(objects, Window(0, 0, size[1], size[0]))
    return keep_visible(objects.replace_unchecked(boxes=np.where(fitted[:, None], boxes, objects.boxes)))


def cut_objects(objects: Objects, window: Window) -> Objects:
    """Return what a window of the image shows of the objects, in the window's frame.

    The box of an object with a mask becomes that of what is shown of it, any other is clipped. Objects of which nothing
    is shown are dropped.
    """
    boxes, cropped = _visible_boxes(objects, window), objects.crop(window)
    boxes = np.where(has_visible_mask(objects)[:, None], boxes, cropped.boxes)
    return keep_visible(cropped.replace_unchecked(boxes=boxes))


def has_visible_mask(objects: Objects) -> Bool[ndarray, " n"]:
    """Return which objects have a mask that is not empty; an empty one says nothing against its object's box."""
    masks = _masks_of(objects)
    return np.zeros(len(objects), bool) if masks is None else masks[0].has_pixels(masks[1])


def _visible_boxes(objects: Objects, window: Window) -> Float32[ndarray, "n 4"]:
    """Return the boxes of what a window shows of masks, in its frame; zeros for nothing, and without masks."""
    masks = _masks_of(objects)
    return np.zeros_like(objects.boxes) if masks is None else masks[0].visible_boxes(masks[1], window)


def _masks_of(objects: Objects) -> tuple[MaskField, Any] | None:
    """Return the first field that holds masks, and its value."""
    for name, value in objects.fields.items():
        field = OBJECT_FIELDS[name]
        if isinstance(field, MaskField):
            return field, value
    return None
