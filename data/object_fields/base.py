"""The interface of the field types of annotated objects, and the table of all fields.

A new field (keypoints, an attribute) needs one class, and a call of ``declare_object_field``. Data sets can then fill
it, and transforms, crops, mixes, resizes and batches handle it, since they loop over the table of fields.
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
    """The boxes, points and masks of a field that albumentations transforms together with the image.

    None for a type that the field does not have. Coordinates are continuous pixels: the top left corner of the image is
    (0, 0).
    """

    boxes: Float32[ndarray, "k 4"] | None = None
    """xyxy. After the transform they are clipped to the new image, and zeros if they are not visible."""
    points: Float[ndarray, "k 2"] | None = None
    """x, y. After the transform they may be outside the new image."""
    masks: UInt8[ndarray, "k h w"] | None = None
    """1 on the object, 0 elsewhere. After the transform they may be 255 where the new image is padded."""


class ObjectField(ABC, Generic[Value]):
    """Base class of field types: how the values of a field are selected, transformed and concatenated.

    A value belongs to one image. It is an array with a row per object, or of any other type that the methods of the
    class handle. Values are never changed in place. Sizes are (height, width) in pixels.
    """

    @abstractmethod
    def check(self, value: Value | Tensor | TensorGroup, count: int, size: tuple[int, int] | None) -> None:
        """Raise ValueError if a value does not fit ``count`` objects or an image of ``size``.

        It is called for the values of data sets and for the tensors of ``to_tensor``. ``size`` is None if it is
        unknown. Tensors on a GPU must not be read.
        """

    @abstractmethod
    def select(self, value: Value, rows: Int64[ndarray, " k"]) -> Value:
        """Return the value of the objects with these indices, in this order."""

    @abstractmethod
    def concatenate(self, values: Sequence[Value]) -> Value:
        """Concatenate the values of several images that share one frame."""

    @abstractmethod
    def resize(self, value: Value, before: tuple[int, int], after: tuple[int, int]) -> Value:
        """Return the value after the image was resized from ``before`` to ``after``."""

    @abstractmethod
    def crop(self, value: Value, window: Window) -> Value:
        """Return the value after the image was cropped to a window; the parts outside the window are removed."""

    @abstractmethod
    def place(self, value: Value, left: int, top: int, size: tuple[int, int]) -> Value:
        """Return the value after the image was placed on a canvas of ``size`` with its corner at (left, top)."""

    @abstractmethod
    def carry(self, value: Value) -> Carried:
        """Return the boxes, points and masks that albumentations must transform with the image."""

    @abstractmethod
    def restore(self, value: Value, carried: Carried, size: tuple[int, int], mirrored: bool) -> Value:
        """Return the value after a transform.

        ``value`` is the value before it, and ``carried`` the transformed result of :meth:`carry`. ``size`` is the size
        of the new image. ``mirrored`` is whether left and right were swapped; it is only set for fields with points.
        """

    @abstractmethod
    def to_tensor(self, value: Value) -> Tensor | TensorGroup:
        """Convert the value for :class:`Instances`; the result must not share memory with the data set."""


class MaskField(ObjectField[Value]):
    """Base class of field types for masks, from which the boxes of objects can be computed."""

    @abstractmethod
    def has_pixels(self, value: Value) -> Bool[ndarray, " n"]:
        """Return whether each mask is not empty."""

    @abstractmethod
    def visible_boxes(self, value: Value, window: Window) -> Float32[ndarray, "n 4"]:
        """Return the box (xyxy) of the part of each mask inside a window, in its pixels; zeros for an empty part."""


class Coverable(ABC, Generic[Value]):
    """A mixin for field types whose values change if other objects cover a part of the object."""

    @abstractmethod
    def cover(self, value: Value, covered: UInt8[ndarray, "h w"]) -> Value:
        """Return the value after other objects have been painted over the pixels where ``covered`` is 1."""


OBJECT_FIELDS: dict[str, ObjectField] = {}
"""All declared fields, by name; if several of them are masks, boxes are fitted to the first."""


def declare_object_field(name: str, field: ObjectField) -> None:
    """Add a field to ``Objects`` and ``Instances``, which data sets fill by name: ``Objects(..., name=value)``.

    The module that calls this must be imported in every process that uses the field, like the module of a data set.
    Raises ValueError if the name is taken or is no valid attribute name.
    """
    declare_instance_field(name, field.check)
    OBJECT_FIELDS[name] = field
