"""Records cut, and laid side by side on one canvas, with their truth."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ...structures import IGNORE
from ..polygons import clip_polygon_mask
from ..transforms.visible import fit_boxes_to_masks, has_visible_mask, visible_rows
from ..types import FILL, Objects, Record


class Window(NamedTuple):
    """Part of an image, in whole pixels."""

    left: int
    top: int
    width: int
    height: int


class Piece(NamedTuple):
    """A record, and where its corner is on a canvas."""

    record: Record
    left: int = 0
    top: int = 0


def objects_of(record: Record) -> Objects:
    """The objects of an image of a data set that has some."""
    assert record.objects is not None, "data sets with objects have them everywhere"
    return record.objects


def cut(record: Record, window: Window) -> Record:
    """What a window shows of a record.

    The box of an object with a mask or an outline becomes that of what is seen of it, any other is cut; what shows
    nothing is dropped.
    """
    left, top, width, height = window
    rows, columns = slice(top, top + height), slice(left, left + width)
    objects = record.objects
    if objects is not None:
        objects = _cut_objects(_shift(objects, -left, -top), (rows, columns), (height, width))
    semantic = None if record.semantic is None else record.semantic[rows, columns]
    return replace(record, image=record.image[rows, columns], objects=objects, semantic=semantic)


def compose_canvas(pieces: Sequence[Piece], size: tuple[int, int]) -> Record:
    """Pieces on a canvas of this (height, width), all in the first one's name. What they leave free has the mean
    colour, no objects and no known class."""
    first = pieces[0].record
    image = np.empty((*size, 3), np.uint8)
    image[:] = FILL
    semantic = None if first.semantic is None else np.full(size, IGNORE, np.uint8)
    for piece in pieces:
        image[_place(piece)] = piece.record.image
        if semantic is not None and piece.record.semantic is not None:
            semantic[_place(piece)] = piece.record.semantic
    objects = [_frame(piece, piece.record.objects, size) for piece in pieces if piece.record.objects is not None]
    return replace(first, image=image, objects=concatenate_objects(objects) if objects else None, semantic=semantic)


def concatenate_objects(several: Sequence[Objects]) -> Objects:
    """All objects of images of one size, and all that they ignore."""
    masks = [objects.masks for objects in several if objects.masks is not None]
    polygon_masks = [objects.polygon_masks for objects in several if objects.polygon_masks is not None]
    return Objects(
        np.concatenate([objects.boxes for objects in several]),
        np.concatenate([objects.labels for objects in several]),
        np.concatenate([objects.ignored for objects in several]),
        np.concatenate(masks) if masks else None,
        tuple(polygon_mask for own in polygon_masks for polygon_mask in own) if polygon_masks else None,
    )


def _cut_objects(objects: Objects, part: tuple[slice, slice], size: tuple[int, int]) -> Objects:
    """Of objects in the frame of a window of this (height, width), which is this ``part`` of their masks."""
    limits = np.array([size[1], size[0]] * 2, np.float32)
    boxes, ignored = (given.clip(0, limits) for given in (objects.boxes, objects.ignored))
    masks = None if objects.masks is None else objects.masks[:, *part]
    left = replace(objects, boxes=boxes, ignored=ignored[visible_rows(ignored)], masks=masks)
    left = fit_boxes_to_masks(left, has_visible_mask(objects), size)
    if left.polygon_masks is None:
        return left
    return replace(
        left, polygon_masks=tuple(clip_polygon_mask(polygon_mask, size) for polygon_mask in left.polygon_masks)
    )


def _place(piece: Piece) -> tuple[slice, slice]:
    """The pixels of a canvas that it covers."""
    height, width = piece.record.image.shape[:2]
    return slice(piece.top, piece.top + height), slice(piece.left, piece.left + width)


def _frame(piece: Piece, objects: Objects, size: tuple[int, int]) -> Objects:
    """A piece's objects in the frame of a canvas of this (height, width)."""
    moved = _shift(objects, piece.left, piece.top)
    if objects.masks is None or objects.masks.shape[1:] == size:
        return moved
    masks = np.zeros((len(objects.masks), *size), np.uint8)
    masks[:, *_place(piece)] = objects.masks
    return replace(moved, masks=masks)


def _shift(objects: Objects, right: int, down: int) -> Objects:
    """Boxes and outlines; masks stay in the frame they are in."""
    step = np.array([right, down] * 2, np.float32)
    polygon_masks = objects.polygon_masks
    if polygon_masks is not None:
        polygon_masks = tuple(replace(polygon_mask, edges=polygon_mask.edges + step) for polygon_mask in polygon_masks)
    return replace(objects, boxes=objects.boxes + step, ignored=objects.ignored + step, polygon_masks=polygon_masks)
