"""Records that are cut, and laid side by side on one canvas, with their ground truth."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ...structures import IGNORE
from ..object_fields import Window
from ..objects import Objects, concatenate_objects
from ..transforms.visible import cut_objects
from ..types import FILL, Record


class Piece(NamedTuple):
    """A record, and where on a canvas its top left corner is."""

    record: Record
    left: int = 0
    top: int = 0

    @property
    def pixels(self) -> tuple[slice, slice]:
        """The rows and columns of the canvas that it covers."""
        height, width = self.record.image.shape[:2]
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def objects_of(record: Record) -> Objects:
    """Return the objects of an image of a data set for detection."""
    assert record.objects is not None, "data sets with objects have them everywhere"
    return record.objects


def cut(record: Record, window: Window) -> Record:
    """Return what a window shows of a record.

    The box of an object with a mask becomes that of what is shown of it, any other is clipped. Objects of which nothing
    is shown are dropped.
    """
    left, top, width, height = window
    rows, columns = slice(top, top + height), slice(left, left + width)
    return replace(
        record,
        image=record.image[rows, columns],
        objects=None if record.objects is None else cut_objects(record.objects, window),
        semantic=None if record.semantic is None else record.semantic[rows, columns],
    )


def compose_canvas(pieces: Sequence[Piece], size: tuple[int, int]) -> Record:
    """Return the pieces on a canvas of this (height, width), as a record with the image id of the first.

    What they leave free has the mean colour, no objects and no known class.
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
