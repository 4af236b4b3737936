"""What a field of an image's objects must be able to do, and the table of all fields.

A new field (keypoints, an attribute) is one file with one class, and a line that declares it. Data sets may then give
it, and transforms, crops, mixes, resizes and batches, which go over the table and name no field, carry it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from jaxtyping import Bool, Float, Float32, Int64, UInt8
from numpy import ndarray
from torch import Tensor

from ...structures import TensorGroup, declare_instance_field

Value = TypeVar("Value")


class Window(NamedTuple):
    """A rectangle of whole pixels in an image."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


class Carried(NamedTuple):
    """The part of a field's value that albumentations moves together with the image; None for what it does not have.

    Coordinates are continuous pixels, as everywhere: the corner of the first pixel is (0, 0).
    """

    boxes: Float32[ndarray, "k 4"] | None = None
    """They come back clipped to the new image, and as zeros where it shows nothing of them."""
    points: Float[ndarray, "k 2"] | None = None
    """x, y. They come back where they were moved to, which may be outside of the new image."""
    masks: UInt8[ndarray, "k h w"] | None = None
    """1 on the object, 0 elsewhere. They come back with 255 where the new image shows more than the old one did."""


class ObjectField(ABC, Generic[Value]):
    """How the values of one field behave, wherever objects are chosen, moved and joined.

    A value holds what one image has: an array with a row for each object, or whatever else the methods below know how
    to handle. Values are never changed in place. Sizes are (height, width) in pixels.
    """

    @abstractmethod
    def check(self, value: Value | Tensor | TensorGroup, count: int, size: tuple[int, int] | None) -> None:
        """Raise ValueError where a value is not one for ``count`` objects, or not one in an image of ``size``.

        It is called for the values of a data set and for those of ``to_tensor`` alike; ``size`` is None where it is not
        known. Values of a tensor on a GPU must not be read.
        """

    @abstractmethod
    def select(self, value: Value, rows: Int64[ndarray, " k"]) -> Value:
        """Return the value for the objects of these numbers, in this order."""

    @abstractmethod
    def concatenate(self, values: Sequence[Value]) -> Value:
        """Return the value for the objects of several images, which are in one frame already."""

    @abstractmethod
    def resize(self, value: Value, before: tuple[int, int], after: tuple[int, int]) -> Value:
        """Return the value in an image that was resized from one size to another."""

    @abstractmethod
    def crop(self, value: Value, window: Window) -> Value:
        """Return the value in the frame of a window of the image, which shows nothing of what lies outside it."""

    @abstractmethod
    def place(self, value: Value, left: int, top: int, size: tuple[int, int]) -> Value:
        """Return the value in a canvas of ``size`` with the image's top left corner at (left, top)."""

    @abstractmethod
    def carry(self, value: Value) -> Carried:
        """Return what albumentations has to move with the image."""

    @abstractmethod
    def restore(self, value: Value, carried: Carried, size: tuple[int, int], mirrored: bool) -> Value:
        """Return the value after a transform, from the value before and what :meth:`carry` gave, moved.

        ``size`` is that of the new image. ``mirrored`` says whether it is a mirror image of the old one, so that left
        and right are swapped; it is known for fields that carry points.
        """

    @abstractmethod
    def to_tensor(self, value: Value) -> Tensor | TensorGroup:
        """Return the value as :class:`Instances` holds it, in memory that the data set does not use."""


class MaskField(ObjectField[Value]):
    """A field that says which pixels an object covers, from which its box can be found."""

    @abstractmethod
    def has_pixels(self, value: Value) -> Bool[ndarray, " n"]:
        """Return whether each mask covers anything."""

    @abstractmethod
    def visible_boxes(self, value: Value, window: Window) -> Float32[ndarray, "n 4"]:
        """Return the box of what a window shows of each mask, in the window's frame; zeros where that is nothing."""


OBJECT_FIELDS: dict[str, ObjectField] = {}
"""All fields of an image's objects, by name; where two fields are masks, boxes are fitted to the first."""


def declare_object_field(name: str, field: ObjectField) -> None:
    """Let objects, from a data set to a batch, have a field of this name: ``Objects(..., name=value)``.

    Whatever module declares a field has to be imported in the processes that use it, as the one that registers a data
    set has.
    """
    declare_instance_field(name, field.check)
    OBJECT_FIELDS[name] = field
