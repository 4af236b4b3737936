"""Cropping of records, and composition of several records on one canvas, with their annotations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ...structures import IGNORE
from ..object_fields import Window
from ..objects import Objects, concatenate_objects
from ..transforms.visible import crop_objects
from ..types import FILL, Record


class Piece(NamedTuple):
    """A record, and the position of its top left corner on a canvas."""

    record: Record
    left: int = 0
    top: int = 0

    @property
    def pixels(self) -> tuple[slice, slice]:
        """The rows and columns of the canvas that the image covers."""
        height, width = self.record.image.shape[:2]
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def objects_of(record: Record) -> Objects:
    """Return the objects of a record of a detection data set."""
    assert record.objects is not None, "every record of a detection data set has objects"
    return record.objects


def crop_record(record: Record, window: Window) -> Record:
    """Crop the image and the annotations of a record to a window.

    An object with a mask gets the box of its visible pixels; other boxes are clipped. Objects that are not visible are
    dropped.
    """
    left, top, width, height = window
    rows, columns = slice(top, top + height), slice(left, left + width)
    return replace(
        record,
        image=record.image[rows, columns],
        objects=None if record.objects is None else crop_objects(record.objects, window),
        semantic=None if record.semantic is None else record.semantic[rows, columns],
    )


def compose_canvas(pieces: Sequence[Piece], size: tuple[int, int]) -> Record:
    """Place pieces on a canvas of ``size`` (height, width), as a record with the image id of the first piece.

    The rest of the canvas has ImageNet's mean color, and is ignored in the semantic map.
    """
    first = pieces[0].record
    image = np.empty((*size, 3), np.uint8)
    image[:] = FILL
    semantic = None if first.semantic is None else np.full(size, IGNORE, np.uint8)
    for piece in pieces:
        image[piece.pixels] = piece.record.image
        if semantic is not None and piece.record.semantic is not None:
            semantic[piece.pixels] = piece.record.semantic
    objects = [
        piece.record.objects.place(piece.left, piece.top, size) for piece in pieces if piece.record.objects is not None
    ]
    return replace(first, image=image, objects=concatenate_objects(objects) if objects else None, semantic=semantic)
