"""Field types of boxes: one per object, and ignore regions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy import ndarray
from torch import Tensor

from ..box_clipping import visible_rows
from .base import Carried, ObjectField, Window

Boxes = Float32[ndarray, "_ 4"]


class BoxField(ObjectField[Boxes]):
    """The field type of the box of each object, xyxy."""

    def check(self, value: Any, count: int, size: tuple[int, int] | None) -> None:
        _require_box_shape("boxes", value)

    def select(self, value: Boxes, rows: Int64[ndarray, " k"]) -> Boxes:
        return value[rows]

    def concatenate(self, values: Sequence[Boxes]) -> Boxes:
        return np.concatenate(values)

    def resize(self, value: Boxes, before: tuple[int, int], after: tuple[int, int]) -> Boxes:
        return resize_boxes(value, before, after)

    def crop(self, value: Boxes, window: Window) -> Boxes:
        return crop_boxes(value, window)

    def place(self, value: Boxes, left: int, top: int, size: tuple[int, int]) -> Boxes:
        return shift_boxes(value, left, top)

    def carry(self, value: Boxes) -> Carried:
        return Carried(boxes=value)

    def restore(self, value: Boxes, carried: Carried, size: tuple[int, int], mirrored: bool) -> Boxes:
        assert carried.boxes is not None, "they were carried"
        return carried.boxes

    def to_tensor(self, value: Boxes) -> Tensor:
        return torch.from_numpy(value.copy())


class RegionField(ObjectField[Boxes]):
    """The field type of regions that belong to no object, such as ignore regions; selecting objects keeps them all."""

    def check(self, value: Any, count: int, size: tuple[int, int] | None) -> None:
        _require_box_shape("ignored", value)

    def select(self, value: Boxes, rows: Int64[ndarray, " k"]) -> Boxes:
        return value

    def concatenate(self, values: Sequence[Boxes]) -> Boxes:
        return np.concatenate(values)

    def resize(self, value: Boxes, before: tuple[int, int], after: tuple[int, int]) -> Boxes:
        return resize_boxes(value, before, after)

    def crop(self, value: Boxes, window: Window) -> Boxes:
        cropped = crop_boxes(value, window)
        return cropped[visible_rows(cropped)]

    def place(self, value: Boxes, left: int, top: int, size: tuple[int, int]) -> Boxes:
        return shift_boxes(value, left, top)

    def carry(self, value: Boxes) -> Carried:
        return Carried(boxes=value)

    def restore(self, value: Boxes, carried: Carried, size: tuple[int, int], mirrored: bool) -> Boxes:
        assert carried.boxes is not None, "they were carried"
        return carried.boxes[visible_rows(carried.boxes)]

    def to_tensor(self, value: Boxes) -> Tensor:
        return torch.from_numpy(value.copy())


def resize_boxes(boxes: Boxes, before: tuple[int, int], after: tuple[int, int]) -> Boxes:
    """Rescale boxes from an image of size ``before`` to one of size ``after``, both (height, width)."""
    height_factor, width_factor = np.array(after, np.float32) / np.array(before, np.float32)
    return boxes * np.array([width_factor, height_factor] * 2, np.float32)


def shift_boxes(boxes: Boxes, right: int, down: int) -> Boxes:
    """Shift boxes by whole pixels."""
    return boxes + np.array([right, down] * 2, np.float32)


def crop_boxes(boxes: Boxes, window: Window) -> Boxes:
    """Return boxes in pixels of a window, clipped to it."""
    limits = np.array([window.width, window.height] * 2, np.float32)
    return shift_boxes(boxes, -window.left, -window.top).clip(0, limits)


def _require_box_shape(name: str, value: Any) -> None:
    if value.ndim != 2 or value.shape[1] != 4:
        raise ValueError(f"{name} must have shape (n, 4), got {tuple(value.shape)}")
