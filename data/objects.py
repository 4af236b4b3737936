"""The annotated objects of one image as numpy arrays, from the data set through the transforms."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy import ndarray

from ..structures import FieldTable, Instances
from .object_fields import OBJECT_FIELDS, Coverable, Keypoints, ObjectField, Window
from .polygons import PolygonMask


class Objects(FieldTable):
    """The annotated objects of one image, in pixels of the record's image.

    The fields are declared in ``OBJECT_FIELDS``, whose types define how each method changes their values. To add a
    field, declare it with ``declare_object_field`` and pass it by name.
    """

    __slots__ = ()

    boxes: Float32[ndarray, "n 4"]
    labels: Int64[ndarray, " n"]
    ignored: Float32[ndarray, "m 4"]
    """Ignore regions, neither object nor background."""
    masks: UInt8[ndarray, "n h w"] | None
    """1 on the object and 0 elsewhere; None if the data set has no masks, or has them as polygons."""
    polygon_masks: tuple[PolygonMask, ...] | None
    """The masks as polygons; None if the data set has no masks, or has them as bitmaps."""
    keypoints: Keypoints | None
    """None if the data set has no keypoints."""

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
        """Return the objects with these indices, in this order, or where ``rows`` is True; ignore regions remain."""
        if not isinstance(rows, ndarray) or rows.ndim != 1:
            raise TypeError(f"objects are selected by a 1-D array of ints or bools, got {rows!r}")
        indices = np.flatnonzero(rows) if rows.dtype == bool else rows
        return self._map(lambda field, value: field.select(value, indices))

    def resize(self, before: tuple[int, int], after: tuple[int, int]) -> "Objects":
        """Return the objects after the image was resized from ``before`` to ``after``, both (height, width)."""
        return self._map(lambda field, value: field.resize(value, before, after))

    def crop(self, window: Window) -> "Objects":
        """Return the objects after the image was cropped to a window; an object outside it gets an empty box."""
        return self._map(lambda field, value: field.crop(value, window))

    def place(self, left: int, top: int, size: tuple[int, int]) -> "Objects":
        """Return the objects after the image was placed on a canvas of ``size`` (height, width) at (left, top)."""
        return self._map(lambda field, value: field.place(value, left, top, size))

    def cover(self, covered: UInt8[ndarray, "h w"]) -> "Objects":
        """Return the objects after others have been painted over ``covered`` pixels (1); boxes do not change."""
        return self._map(lambda field, value: field.cover(value, covered) if isinstance(field, Coverable) else value)

    def to_instances(self) -> Instances:
        """Convert the objects to tensors, as the training target of a head."""
        tensors: dict[str, Any] = {name: OBJECT_FIELDS[name].to_tensor(value) for name, value in self.fields.items()}
        return Instances(**tensors)

    def _map(self, change: Callable[[ObjectField, Any], Any]) -> "Objects":
        changed = {name: change(OBJECT_FIELDS[name], value) for name, value in self.fields.items()}
        return self.replace_unchecked(**changed)


def concatenate_objects(tables: Sequence[Objects]) -> Objects:
    """Concatenate the objects of several images that share one frame.

    Raises ValueError if a field is missing in some of them.
    """
    values: dict[str, Any] = {}
    for name, field in OBJECT_FIELDS.items():
        present = [table.fields[name] for table in tables if name in table.fields]
        if present:
            values[name] = field.concatenate(present)
    return Objects(**values)
