"""Class maps in PNG files: the value of a pixel is its class, and a palette is ignored.

Whether a file stores such values can be read from its header; the values can only be checked by decoding.
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from ..structures import IGNORE, DataError
from .image_headers import PNG_SIGNATURE
from .pillow import image_errors_as_data_errors, open_image

_LAST_BYTES = 64
"""Number of bytes at the end of a PNG file that contain the checksum of its pixels."""
_PALETTE = 3
_COLOR_TYPES = {2: "RGB", 4: "gray with transparency", 6: "RGBA"}
"""PNG color types with more than one channel, which cannot store class numbers."""


def check_class_map(path: Path, size: tuple[int, int], image_id: str) -> None:
    """Check the header of a class map: raise DataError unless it is a gray or palette PNG of this (height, width).

    ``size`` is the size of the upright image.
    """

    def problem(case: str, what: str, fix: str) -> DataError:
        return DataError(what, fix, case=case, file=path, image_id=image_id)

    depth, color_type = check_png_header(path, size, image_id)
    if color_type in _COLOR_TYPES:
        what = f"the mask holds colors ({_COLOR_TYPES[color_type]}), not class numbers"
        fix = "convert each color to its class number, and save as 8-bit gray or with a palette"
        raise problem("color-mask", what, fix)
    if color_type != _PALETTE and depth != 8:
        what = f"the mask is gray with {depth} bits per pixel"
        raise problem("bad-mask-depth", what, "save it with 8 bits per pixel, or with a palette")


def check_png_header(path: Path, size: tuple[int, int], image_id: int | str) -> tuple[int, int]:
    """Read the header of a mask, and return its bits per channel and its PNG color type.

    Raises DataError unless the mask is a PNG file of ``size``, the (height, width) of the upright image.
    """

    def problem(case: str, what: str, fix: str) -> DataError:
        return DataError(what, fix, case=case, file=path, image_id=image_id)

    try:
        with path.open("rb") as file:
            header = file.read(26)
    except FileNotFoundError:
        raise problem("missing-mask", "the image has no mask", "add it, or remove the image from the list") from None
    except OSError as error:
        raise problem("damaged-mask", f"the mask cannot be opened: {error.strerror}", "check the path") from error
    if not header.startswith(PNG_SIGNATURE) or len(header) < 26:
        raise problem("not-a-mask", "the mask is not a PNG file", "save it as PNG, which is lossless")
    width, height, depth, color_type = struct.unpack(">IIBB", header[16:])
    if (height, width) != size:
        what = f"the mask is {height}x{width} (height x width), its image {size[0]}x{size[1]}"
        is_rotated = (width, height) == size
        fix = "rotate the mask by the image's EXIF orientation" if is_rotated else "save a mask of the image's size"
        raise problem("mask-size", what, fix)
    return depth, color_type


def read_class_map(path: Path, num_classes: int, image_id: str, hint: str) -> UInt8[ndarray, "h w"]:
    """Read the class of every pixel from a class map.

    Raises DataError for a damaged file, and for a value that is neither below ``num_classes`` nor 255; ``hint`` is the
    advice for that case.
    """
    with image_errors_as_data_errors("mask", path, image_id), open_image(path) as image:
        labels = np.array(image)
    invalid = (labels >= num_classes) & (labels != IGNORE)
    if invalid.any():
        row, column = np.argwhere(invalid)[0].tolist()
        raise DataError(
            f"the mask has the value {labels[row, column]} (row {row}, column {column}), which is neither one of the "
            f"{num_classes} classes (0..{num_classes - 1}) nor ignored ({IGNORE})", hint,
            case="mask-value", file=path, image_id=image_id,
        )  # fmt: skip
    return labels


def write_class_map(path: Path, labels: UInt8[ndarray, "h w"], colors: Sequence[tuple[int, int, int]]) -> None:
    """Write the class of every pixel as a PNG file with a palette: ``colors`` (RGB) of the classes, black for others.

    Class numbers are the pixel values, which programs that ignore the palette read, as this module does.
    """
    image = Image.fromarray(labels)
    image.putpalette([*np.ravel(colors).tolist(), *[0] * 3 * (256 - len(colors))])
    image.save(path, compress_level=1)


def read_last_bytes(path: Path) -> bytes:
    """Return the last bytes of a PNG file, which contain the checksum of its pixels (RFC 1950)."""
    with path.open("rb") as file:
        file.seek(-min(_LAST_BYTES, path.stat().st_size), os.SEEK_END)
        return file.read()
