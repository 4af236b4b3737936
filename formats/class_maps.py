"""Maps of classes in PNG files: the number of a pixel is its class, whatever colour a palette gives it.

A header tells whether a file holds such numbers; what the numbers are only decoding tells.
"""

import os
import struct
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from ..structures import IGNORE, DataError
from .image_headers import PNG_SIGNATURE
from .pillow import guarded, open_guarded

_END = 64
"""Bytes at the end of a PNG file that hold the checksum of all its pixels."""
_PALETTE = 3
_COLOR_TYPES = {2: "RGB", 4: "gray with transparency", 6: "RGBA"}
"""PNG's other types of pixels."""


def check_class_map(path: Path, size: tuple[int, int], image_id: str) -> None:
    """Check by its header that a file is a map of class numbers of its image's (height, width); DataError if not."""

    def problem(case: str, what: str, fix: str) -> DataError:
        return DataError(what, fix, case=case, file=path, image_id=image_id)

    try:
        with path.open("rb") as file:
            header = file.read(26)
    except FileNotFoundError:
        raise problem("missing-mask", "the image has no mask", "add it, or take the image off the list") from None
    except OSError as error:
        raise problem("damaged-mask", f"the mask cannot be opened: {error.strerror}", "check the path") from error
    if not header.startswith(PNG_SIGNATURE) or len(header) < 26:
        raise problem("not-a-mask", "the mask is no PNG file", "save it as PNG, which keeps every number")
    width, height, depth, color_type = struct.unpack(">IIBB", header[16:])
    if color_type in _COLOR_TYPES:
        what = f"the mask holds colours ({_COLOR_TYPES[color_type]}), not numbers of classes"
        fix = "convert each colour to its class's number, and save 8-bit gray or a palette"
        raise problem("colour-mask", what, fix)
    if color_type != _PALETTE and depth != 8:
        what = f"the mask is gray of {depth} bits a pixel"
        raise problem("bad-mask-depth", what, "save it with 8 bits, or a palette")
    if (height, width) != size:
        what = f"the mask is {height}x{width} (height x width), its image {size[0]}x{size[1]}"
        is_turned = (width, height) == size
        fix = "turn it as the EXIF data turns the image" if is_turned else "draw the mask anew"
        raise problem("mask-size", what, fix)


def read_class_map(path: Path, num_classes: int, image_id: str, hint: str) -> UInt8[ndarray, "h w"]:
    """Return the class of every pixel; DataError for damage, and for a number that is neither a class nor 255.

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


def read_end(path: Path) -> bytes:
    """Return the last bytes of a PNG file, which change with its pixels: the checksum of them all is there
    (RFC 1950)."""
    with path.open("rb") as file:
        file.seek(-min(_END, path.stat().st_size), os.SEEK_END)
        return file.read()
