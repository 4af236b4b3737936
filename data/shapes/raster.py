"""Filling polygons: how much of each pixel they cover."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from .shape_polygons import SUBPIXEL, Ring

_ROWS = 4  # sample rows in a pixel
FULL = _ROWS * SUBPIXEL
"""The cover of a pixel that is wholly inside."""


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A window of the plane that a picture lies in, with how much of each pixel is inside: 0 to ``FULL``."""

    top: int
    left: int
    cover: UInt8[np.ndarray, "h w"]

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """The pixels that are inside by half or more."""
        return self.cover >= FULL // 2

    def move(self, down: int, right: int) -> "Patch":
        """The same patch elsewhere, by whole pixels."""
        return Patch(self.top + down, self.left + right, self.cover)

    def crop(self, height: int, width: int) -> "Patch":
        """The part inside a picture of that size; it may be empty."""
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = height - self.top, width - self.left
        return Patch(top, left, self.cover[top - self.top : max(bottom, 0), left - self.left : max(right, 0)])

    @property
    def window(self) -> tuple[slice, slice]:
        """Where it lies, as an index into a picture that holds it."""
        height, width = self.cover.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def fill(rings: list[Ring]) -> Patch:
    """The patch that rings (in 1/16 pixel) cover, by the even-odd rule; it is as large as they are, in frame or not.

    Along each sample row the crossed edges, from left to right, turn inside on and off by turns. Cover is the running
    sum of these turns, each shared between the pixel it falls in and the next one by where in the pixel it falls.
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
    turn = np.where(np.arange(len(order)) % 2 == 0, 1, -1)

    cover = np.zeros((height, width + 2), dtype=np.int64)
    pixel, share = crossing // SUBPIXEL, crossing % SUBPIXEL
    np.add.at(cover, (row // _ROWS, pixel), turn * (SUBPIXEL - share))
    np.add.at(cover, (row // _ROWS, pixel + 1), turn * share)
    cover = np.cumsum(cover, axis=1)[:, :width]
    return Patch(int(top), int(left), cover.astype(np.uint8))
