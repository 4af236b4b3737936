"""The field type of masks as bitmaps."""

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy import ndarray
from torch import Tensor

from ...structures import require_one_per_box
from .base import Carried, Coverable, MaskField, Window

Bitmaps = UInt8[ndarray, "_ _ _"]


class BitmapField(MaskField[Bitmaps], Coverable[Bitmaps]):
    """The field type of masks of the size of the image: 1 on the object and 0 elsewhere."""

    def check(self, value: Any, count: int, size: tuple[int, int] | None) -> None:
        require_one_per_box("mask", value, count)
        if (greatest := value.max(initial=0)) > 1:
            raise ValueError(f"masks are 1 on the object and 0 elsewhere, got {greatest}; compare them with > 0")

    def select(self, value: Bitmaps, rows: Int64[ndarray, " k"]) -> Bitmaps:
        return value[rows]

    def concatenate(self, values: Sequence[Bitmaps]) -> Bitmaps:
        return np.concatenate(values)

    def resize(self, value: Bitmaps, before: tuple[int, int], after: tuple[int, int]) -> Bitmaps:
        return resize_bitmaps(value, after)

    def crop(self, value: Bitmaps, window: Window) -> Bitmaps:
        left, top, width, height = window
        return value[:, top : top + height, left : left + width]

    def place(self, value: Bitmaps, left: int, top: int, size: tuple[int, int]) -> Bitmaps:
        count, height, width = value.shape
        if (height, width) == size:
            return value
        placed = np.zeros((count, *size), np.uint8)
        placed[:, top : top + height, left : left + width] = value
        return placed

    def cover(self, value: Bitmaps, covered: UInt8[ndarray, "h w"]) -> Bitmaps:
        return value & ~covered

    def carry(self, value: Bitmaps) -> Carried:
        return Carried(masks=value)

    def restore(self, value: Bitmaps, carried: Carried, size: tuple[int, int], mirrored: bool) -> Bitmaps:
        assert carried.masks is not None, "they were carried"
        if carried.masks.max(initial=0) > 1:  # padding may be 255
            return (carried.masks == 1).view(np.uint8)
        return np.ascontiguousarray(carried.masks)

    def to_tensor(self, value: Bitmaps) -> Tensor:
        return torch.from_numpy(value.view(bool))

    def has_pixels(self, value: Bitmaps) -> Bool[ndarray, " n"]:
        return np.asarray(value.view(bool).any(axis=(1, 2)))

    def visible_boxes(self, value: Bitmaps, window: Window) -> Float32[ndarray, "n 4"]:
        """Return the tight box of each mask, from the start of its first pixel to the end of its last."""
        masks = self.crop(value, window).view(bool)
        boxes = np.zeros((len(masks), 4), np.float32)
        for box, mask in zip(boxes, masks, strict=True):
            columns, rows = (np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1))
            if len(rows):
                box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes


def resize_bitmaps(masks: Bitmaps, size: tuple[int, int]) -> Bitmaps:
    """Resize bitmaps to ``size`` (height, width) like :func:`resize_nearest`, but only within the box of each."""
    rows, columns = (_nearest_indices(before, after) for before, after in zip(masks.shape[1:], size, strict=True))
    resized = np.zeros((len(masks), *size), np.uint8)
    for mask, target in zip(masks, resized, strict=True):
        left, top, width, height = cv2.boundingRect(mask)
        first_row, end_row = np.searchsorted(rows, (top, top + height))
        first_column, end_column = np.searchsorted(columns, (left, left + width))
        inside = mask[top : top + height].take(columns[first_column:end_column], axis=1)
        target[first_row:end_row, first_column:end_column] = inside.take(rows[first_row:end_row] - top, axis=0)
    return resized


@functools.lru_cache(maxsize=64)
def _nearest_indices(before: int, after: int) -> Int64[ndarray, " n"]:
    """Return the index of the source pixel of each pixel along a side that is resized by nearest neighbor."""
    source = np.arange(before, dtype=np.float32)[None]
    return cv2.resize(source, (after, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0].astype(np.int64)


def resize_nearest(values: UInt8[ndarray, "_ _"], size: tuple[int, int]) -> UInt8[ndarray, "_ _"]:
    """Resize a map to ``size`` (height, width) by nearest-neighbor interpolation at pixel centers.

    OpenCV's ``INTER_NEAREST`` takes the pixel above and left of the exact position instead.
    """
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
