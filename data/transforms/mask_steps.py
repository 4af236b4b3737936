"""Albumentations' flip and crop, faster for the masks of many objects.

Albumentations transforms bitmaps one at a time and then copies all of them into one array; these steps write them into
that array directly. Everything else is albumentations' own.
"""

from typing import Any

import albumentations as A
import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray


class HorizontalFlip(A.HorizontalFlip):
    """A horizontal flip."""

    def apply_to_masks(self, masks: UInt8[ndarray, "n h w"], **params: Any) -> UInt8[ndarray, "n h w"]:
        """Flip bitmaps."""
        flipped = np.empty(masks.shape, np.uint8)
        for mask, target in zip(masks, flipped, strict=True):
            cv2.flip(mask, 1, dst=target)
        return flipped


class RandomCrop(A.RandomCrop):
    """A random crop of a fixed size; smaller images are padded."""

    def apply_to_masks(
        self, masks: UInt8[ndarray, "n _ _"], crop_coords: tuple[int, int, int, int], **params: Any
    ) -> UInt8[ndarray, "n h w"]:
        """Crop bitmaps; the padding is 0."""
        padding = params.get("pad_params") or {"pad_left": 0, "pad_top": 0}
        left, top, right, bottom = crop_coords
        height, width = masks.shape[1:]
        cropped = np.zeros((len(masks), bottom - top, right - left), np.uint8)
        down, across = padding["pad_top"] - top, padding["pad_left"] - left  # the position of the image in the crop
        rows = slice(max(-down, 0), min(bottom - padding["pad_top"], height))
        columns = slice(max(-across, 0), min(right - padding["pad_left"], width))
        target = cropped[:, rows.start + down : rows.stop + down, columns.start + across : columns.stop + across]
        target[:] = masks[:, rows, columns]
        return cropped
