"""Maps of classes in PNG files: the number of a pixel is its class, whatever colour a palette gives it.

A header tells whether a file holds such numbers, so all headers are looked at before training. What the numbers are
only decoding tells: that is checked of a few files before, and of every file when it is read.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from ..formats.pillow import guarded, open_guarded
from ..structures import IGNORE, DataError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TAIL = 64
_GRAY, _PALETTE = 0, 3
_COLOURS = {2: "RGB", 4: "gray with transparency", 6: "RGBA"}
"""PNG's other types of pixels."""


def check_label_map(path: Path, size: tuple[int, int], image_id: str) -> None:
    """DataError for a file that is no map of class numbers, or not of its image's (height, width)."""

    def fault(case: str, what: str, fix: str) -> DataError:
        return DataError(what, fix, case=case, file=path, image_id=image_id)

    try:
        with path.open("rb") as file:
            header = file.read(26)
    except FileNotFoundError:
        raise fault("missing-mask", "the image has no mask", "add it, or take the image off the list") from None
    except OSError as error:
        raise fault("damaged-mask", f"the mask cannot be opened: {error.strerror}", "check the path") from error
    if not header.startswith(_SIGNATURE) or len(header) < 26:
        raise fault("not-a-mask", "the mask is no PNG file", "save it as PNG, which keeps every number")
    width, height, depth, colour = struct.unpack(">IIBB", header[16:])
    if colour in _COLOURS:
        what = f"the mask holds colours ({_COLOURS[colour]}), not numbers of classes"
        raise fault("colour-mask", what, "convert each colour to its class's number, and save 8-bit gray or a palette")
    if colour != _PALETTE and depth != 8:
        raise fault("bad-mask-depth", f"the mask is gray of {depth} bits a pixel", "save it with 8 bits, or a palette")
    if (height, width) != size:
        what = f"the mask is {height}x{width} (height x width), its image {size[0]}x{size[1]}"
        swapped = (width, height) == size
        raise fault("mask-size", what, "turn it as the EXIF data turns the image" if swapped else "draw the mask anew")


def read_tail(path: Path) -> bytes:
    """The last bytes of a PNG file, with the sum of all its pixels (RFC 1950): other pixels have others."""
    with path.open("rb") as file:
        file.seek(-min(_TAIL, path.stat().st_size), os.SEEK_END)
        return file.read()


def read_label_map(path: Path, num_classes: int, image_id: str, hint: str) -> UInt8[ndarray, "h w"]:
    """The classes of the pixels; DataError for damage, and for a number that is neither a class nor 255.

    ``hint`` says what to do about such a number.
    """
    with guarded("mask", path, image_id), open_guarded(path) as image:
        labels = np.array(image)
    strange = (labels >= num_classes) & (labels != IGNORE)
    if strange.any():
        row, column = np.argwhere(strange)[0].tolist()
        raise DataError(
            f"the mask has the value {labels[row, column]} (row {row}, column {column}), which is neither one of the "
            f"{num_classes} classes (0..{num_classes - 1}) nor ignored ({IGNORE})", hint,
            case="mask-value", file=path, image_id=image_id,
        )  # fmt: skip
    return labels


class LazySemanticMaps(Mapping[str | int, UInt8[ndarray, "h w"]]):
    """The map of each image id, read when it is asked for: all of them would fill the memory."""

    def __init__(self, image_ids: Sequence[str | int], read: Callable[[int], UInt8[ndarray, "h w"]]) -> None:
        self._places = {image_id: place for place, image_id in enumerate(image_ids)}
        self._read = read

    def __getitem__(self, image_id: str | int) -> UInt8[ndarray, "h w"]:
        return self._read(self._places[image_id])

    def __iter__(self) -> Iterator[str | int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
