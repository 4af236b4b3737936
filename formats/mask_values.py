"""Masks whose values or colors stand for classes by a table: as exporters write them, in any lossless image format."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray
from PIL import Image

from ..structures import DataError
from .pillow import image_errors_as_data_errors, open_image

MaskValue = int | tuple[int, int, int]
"""A gray value, the index of a palette color, or a color (red, green, blue)."""
_GRAY_MODES = ("L", "P", "1", "I;16", "I;16B", "I")


def read_mask_codes(path: Path, colors: bool, image_id: str) -> Int64[ndarray, "h w"]:
    """Read the value of each pixel of a mask, or its color as red * 65536 + green * 256 + blue.

    Raises DataError if the file cannot be read, or holds colors where values are expected.
    """
    with image_errors_as_data_errors("mask", path, image_id), open_image(path) as image:
        if colors:
            pixels = np.array(image.convert("RGB"), np.int64)
            return (pixels[..., 0] << 16) + (pixels[..., 1] << 8) + pixels[..., 2]
        mode, values = image.mode, np.array(image) if image.mode in _GRAY_MODES else np.array(image.convert("RGB"))
    if mode in _GRAY_MODES:
        return values.astype(np.int64) * (255 if mode == "1" else 1)
    if (values == values[..., :1]).all():  # gray that is saved as three equal channels
        return values[..., 0].astype(np.int64)
    raise DataError(
        f"the mask holds colors ({mode}), not class numbers", "give the color of each class in values",
        case="color-mask", file=path, image_id=image_id,
    )  # fmt: skip


def as_code(value: MaskValue) -> int:
    """Return the code of a value or color, as :func:`read_mask_codes` gives it."""
    return value if isinstance(value, int) else (value[0] << 16) + (value[1] << 8) + value[2]


class MaskTable:
    """A table from the values or colors in masks to labels; ``IGNORE`` is the label of ignored ones.

    ``others`` is the label of all values that are not in the table; None makes them an error.
    """

    def __init__(self, values: Sequence[MaskValue], labels: Sequence[int], others: int | None) -> None:
        codes = np.array([as_code(value) for value in values], np.int64)
        order = np.argsort(codes)
        self.colors = any(isinstance(value, tuple) for value in values)
        self._codes, self._labels, self._others = codes[order], np.array(labels, np.uint8)[order], others

    def read(self, path: Path, size: tuple[int, int], resize: bool, image_id: str) -> UInt8[ndarray, "h w"]:
        """Read a mask as labels, of the ``size`` (height, width) of its image.

        Raises DataError if the file cannot be read, has another size and is not to be resized, or has a value that is
        not in the table.
        """
        codes = read_mask_codes(path, self.colors, image_id)
        positions = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        labels = self._labels[positions]
        unknown = self._codes[positions] != codes
        if unknown.any():
            if self._others is None:
                raise self._unknown_error(codes, unknown, path, image_id)
            labels[unknown] = self._others
        if labels.shape == size:
            return labels
        if not resize:
            height, width = labels.shape
            raise DataError(
                f"the mask is {height}x{width} (height x width), its image {size[0]}x{size[1]}",
                "save a mask of the image's size, or set other_size to resize", case="mask-size", file=path,
                image_id=image_id,
            )  # fmt: skip
        return np.array(Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST))

    def _unknown_error(self, codes: ndarray, unknown: ndarray, path: Path, image_id: str) -> DataError:
        row, column = np.argwhere(unknown)[0].tolist()
        code = int(codes[row, column])
        shown = (code >> 16, code >> 8 & 255, code & 255) if self.colors else code
        noun = "color" if self.colors else "value"
        return DataError(
            f"the mask has the {noun} {shown} (row {row}, column {column}), which is neither a class nor ignored",
            "add it to values or ignored, or set others", case="mask-value", file=path, image_id=image_id,
        )  # fmt: skip


def read_label_map(path: Path) -> list[tuple[str, tuple[int, int, int]]]:
    """Return (class name, color) for each line ``name:r,g,b::`` of the labelmap.txt of CVAT and Datumaro.

    Raises DataError, with the line, if the file is not in this format.
    """
    entries: list[tuple[str, tuple[int, int, int]]] = []
    for number, line in enumerate(path.read_bytes().decode("utf-8-sig", "replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        words = rest.partition(":")[0].split(",")
        if not name.strip() or len(words) != 3 or not all(word.strip().isdecimal() and len(word) < 6 for word in words):
            raise DataError(f"line {number} is not name:r,g,b::", "correct it", case="bad-labelmap", file=path)
        red, green, blue = (int(word) for word in words)
        entries.append((name.strip(), (red, green, blue)))
    return entries
