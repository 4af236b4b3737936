"""Rasterisation of polygons with anti-aliasing: the fraction of each pixel that they cover."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from .shape_polygons import SUBPIXEL, Ring

_ROWS = 4  # sample rows in a pixel
FULL_COVER = _ROWS * SUBPIXEL
"""The cover of a pixel that lies entirely inside."""


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The cover of every pixel of a window, 0 to ``FULL_COVER``, and the position of the window in the image."""

    top: int
    left: int
    cover: UInt8[np.ndarray, "h w"]

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """The pixels that are covered by at least half."""
        return self.cover >= FULL_COVER // 2

    def move(self, down: int, right: int) -> "Patch":
        """Return the patch shifted by whole pixels."""
        return Patch(self.top + down, self.left + right, self.cover)

    def crop(self, height: int, width: int) -> "Patch":
        """Return the part of the patch inside an image of this size, which may be empty."""
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = height - self.top, width - self.left
        return Patch(top, left, self.cover[top - self.top : max(bottom, 0), left - self.left : max(right, 0)])

    @property
    def window(self) -> tuple[slice, slice]:
        """The window as an index into an image that contains it."""
        height, width = self.cover.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def fill(rings: list[Ring]) -> Patch:
    """Fill rings, in units of 1/16 pixel, by the even-odd rule; the patch may extend outside the image.

    From left to right, a sample row enters and leaves the inside alternately at the edges that it crosses. The cover is
    the cumulative sum of +1 and -1 at these crossings, each distributed over its pixel and the next one according to
    its position within the pixel.
    """
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    left, top = start.min(axis=0) // SUBPIXEL
    width, height = -(-start.max(axis=0) // SUBPIXEL) - (left, top)

    step = SUBPIXEL // _ROWS
    rows = top * SUBPIXEL + step // 2 + step * np.arange(height * _ROWS)
    row, edge = np.nonzero((start[:, 1] <= rows[:, None]) != (end[:, 1] <= rows[:, None]))
    (x, y), (run, rise) = start[edge].T, (end - start)[edge].T
    crossing = x + (rows[row] - y) * run // rise
    order = np.lexsort((crossing, row))
    row, crossing = row[order], crossing[order] - left * SUBPIXEL
    sign = np.where(np.arange(len(order)) % 2 == 0, 1, -1)

    cover = np.zeros((height, width + 2), dtype=np.int64)
    pixel, offset = crossing // SUBPIXEL, crossing % SUBPIXEL
    np.add.at(cover, (row // _ROWS, pixel), sign * (SUBPIXEL - offset))
    np.add.at(cover, (row // _ROWS, pixel + 1), sign * offset)
    cover = np.cumsum(cover, axis=1)[:, :width]
    return Patch(int(top), int(left), cover.astype(np.uint8))
