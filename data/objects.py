"""The objects of one image, with every declared field, as data sets give them and transforms move them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy import ndarray

from ..structures import FieldTable, Instances
from .object_fields import OBJECT_FIELDS, ObjectField, Window
from .polygons import PolygonMask


class Objects(FieldTable):
    """The objects of an image, in the pixels of the record's image.

    The fields are those of ``OBJECT_FIELDS``, and their types say what happens to them in each of the methods here. One
    that the package does not have is declared with ``declare_object_field`` and then given by its name.
    """

    __slots__ = ()

    boxes: Float32[ndarray, "n 4"]
    labels: Int64[ndarray, " n"]
    ignored: Float32[ndarray, "m 4"]
    """Regions that are neither object nor background."""
    masks: UInt8[ndarray, "n h w"] | None
    """1 on the object and 0 elsewhere; None where the data set has no masks, or has them as polygons."""
    polygon_masks: tuple[PolygonMask, ...] | None
    """The masks as polygons."""

    def __init__(
        self,
        boxes: Float32[ndarray, "n 4"],
        labels: Int64[ndarray, " n"],
        ignored: Float32[ndarray, "m 4"],
        masks: UInt8[ndarray, "n h w"] | None = None,
        polygon_masks: tuple[PolygonMask, ...] | None = None,
        **fields: Any,
    ) -> None:
        given = {"boxes": boxes, "labels": labels, "ignored": ignored, "masks": masks, "polygon_masks": polygon_masks}
        self._set_fields(given | fields)
        for name, value in self.fields.items():
            OBJECT_FIELDS[name].check(value, len(boxes), None)

    @classmethod
    def declared_fields(cls) -> Iterable[str]:
        return OBJECT_FIELDS

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Int64[ndarray, " k"] | Bool[ndarray, " n"]) -> "Objects":
        """Return the objects of these numbers in this order, or those that are true; regions to ignore all stay."""
        if not isinstance(rows, ndarray) or rows.ndim != 1:
            raise TypeError(f"objects are chosen by an array of numbers or of bools with one axis, got {rows!r}")
        numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
        return self._map(lambda field, value: field.select(value, numbers))

    def resize(self, before: tuple[int, int], after: tuple[int, int]) -> "Objects":
        """Return the objects in an image that was resized from one (height, width) to another."""
        return self._map(lambda field, value: field.resize(value, before, after))

    def crop(self, window: Window) -> "Objects":
        """Return the objects in the frame of a window of the image; those that it does not show have empty boxes."""
        return self._map(lambda field, value: field.crop(value, window))

    def place(self, left: int, top: int, size: tuple[int, int]) -> "Objects":
        """Return the objects in a canvas of this (height, width), with the image's corner at (left, top)."""
        return self._map(lambda field, value: field.place(value, left, top, size))

    def to_instances(self) -> Instances:
        """Return the objects as the tensors that a head learns from."""
        tensors: dict[str, Any] = {name: OBJECT_FIELDS[name].to_tensor(value) for name, value in self.fields.items()}
        return Instances(**tensors)

    def _map(self, change: Callable[[ObjectField, Any], Any]) -> "Objects":
        changed = {name: change(OBJECT_FIELDS[name], value) for name, value in self.fields.items()}
        return self.replace_unchecked(**changed)


def concatenate_objects(tables: Sequence[Objects]) -> Objects:
    """Return the objects of several images in one frame; ValueError where only some of them have a field."""
    values: dict[str, Any] = {}
    for name, field in OBJECT_FIELDS.items():
        present = [table.fields[name] for table in tables if name in table.fields]
        if present:
            values[name] = field.concatenate(present)
    return Objects(**values)
