"""The masks of many objects in one block of memory, as COCO's run lengths."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from hotcoco import mask as rle
from jaxtyping import Int64, UInt8
from numpy import ndarray


@dataclass(frozen=True, slots=True, eq=False)
class MaskTable:
    """Masks by number. Flat arrays, which forked workers share: an image's masks are decoded when it is read.

    About 250 bytes an object in COCO; a polygon is drawn once, by the code that draws it for COCO's metric.
    """

    text: UInt8[ndarray, " t"]
    starts: Int64[ndarray, " n1"]
    areas: Int64[ndarray, " n"]  # pixels

    @classmethod
    def encode(cls, segmentations: Iterable[tuple[Any, tuple[int, int]]]) -> "MaskTable":
        """Of pairs of a segmentation, which ``segmentation_problem`` finds nothing wrong with, and its image's (height,
        width)."""
        encoded = [encode_mask(*pair) for pair in segmentations]
        texts: list[bytes] = [each["counts"] for each in encoded]
        areas = np.array([rle.area(each) for each in encoded], np.int64)
        starts = np.cumsum([0, *map(len, texts)])
        return cls(np.frombuffer(b"".join(texts), np.uint8), starts, areas)

    def decode(self, rows: Iterable[int], size: tuple[int, int]) -> UInt8[ndarray, "n h w"]:
        """The bitmaps of some objects of one image of this (height, width)."""
        texts = [self.text[self.starts[row] : self.starts[row + 1]].tobytes() for row in rows]
        masks = np.zeros((len(texts), *size), np.uint8)
        for mask, counts in zip(masks, texts, strict=True):
            # Decoded masks lie column by column: numpy would copy them element by element, many times slower.
            cv2.transpose(rle.decode({"size": list(size), "counts": counts}).T, dst=mask)
        return masks


def encode_mask(segmentation: Any, size: tuple[int, int]) -> Any:
    """Polygons, or run lengths of either kind, as compressed run lengths; pixels of several polygons are joined."""
    encoded = rle.frPyObjects(segmentation, *size)
    return rle.merge(encoded) if isinstance(encoded, list) else encoded
