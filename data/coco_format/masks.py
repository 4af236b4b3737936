"""The masks of many objects as COCO's compressed RLE, in a few flat arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from ...formats.rle import decode_mask, encode_segmentations, mask_areas


@dataclass(frozen=True, slots=True, eq=False)
class MaskTable:
    """The masks of many objects as compressed RLE, in flat arrays that processes share.

    The masks of an image are decoded when it is read. In COCO they take about 250 bytes per object. Polygons are
    rasterized once, when the data set is opened, by the same code as for COCO's metric.
    """

    text: UInt8[ndarray, " t"]
    """The concatenated ``counts`` of all masks."""
    starts: Int64[ndarray, " n1"]
    """The position in ``text`` at which the counts of each mask start."""
    areas: Int64[ndarray, " n"]
    """The number of pixels of each mask."""

    def decode(self, rows: Iterable[int], size: tuple[int, int]) -> UInt8[ndarray, "n h w"]:
        """Return the bitmaps of some objects of one image of ``size`` (height, width)."""
        texts = [self.text[self.starts[row] : self.starts[row + 1]].tobytes() for row in rows]
        masks = np.zeros((len(texts), *size), np.uint8)
        for mask, counts in zip(masks, texts, strict=True):
            # Decoded masks are column-major: numpy would copy them element by element, which is many times slower.
            cv2.transpose(decode_mask({"size": list(size), "counts": counts}).T, dst=mask)
        return masks


class MaskCollector:
    """Builder of a :class:`MaskTable`, which accepts masks in any order."""

    def __init__(self, count: int) -> None:
        self._texts: list[bytes] = [b""] * count
        self.areas: Int64[ndarray, " n"] = np.zeros(count, np.int64)

    def add(self, indices: Sequence[int], segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]]) -> None:
        """Encode and store the segmentations of the objects with these indices; ``sizes`` are those of their images."""
        encoded = encode_segmentations(segmentations, sizes)
        self.areas[list(indices)] = mask_areas(encoded)
        for index, mask in zip(indices, encoded, strict=True):
            self._texts[index] = mask["counts"]

    def table(self, chosen: Int64[ndarray, " k"]) -> MaskTable:
        """Return the table of the masks of the chosen objects, in their order."""
        texts = [self._texts[index] for index in chosen.tolist()]
        starts = np.cumsum([0, *map(len, texts)])
        return MaskTable(np.frombuffer(b"".join(texts), np.uint8), starts, self.areas[chosen])
