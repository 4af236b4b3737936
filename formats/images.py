"""Reading of image files, with one policy for all formats, and a cheap check of file headers before training.

| the file has | result |
|---|---|
| an EXIF orientation | rotated upright |
| gray, 1 bit, a palette, CMYK, YCbCr | converted to RGB by Pillow |
| an alpha channel or transparent color | alpha is dropped, not blended |
| 16 bits per channel | the high byte, as in OpenCV |
| several frames | the first frame |
| floating-point or 32-bit samples | refused, since their range is unknown |
| more than ``MAX_PIXELS`` pixels | refused before decoding |
| a JPEG without its end marker | used if all its blocks are there |
| been truncated, or is not an image | refused |

A JPEG that is corrupt in the middle decodes to wrong pixels in every common library; only a checksum could detect it. A
corrupt PNG is detected when it is decoded, but not by the check before training.
"""

import io
import math
import os
import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from ..structures import DataError
from .image_headers import PNG_SIGNATURE, plain_image_size, plain_jpeg_size
from .pillow import image_errors_as_data_errors, open_image

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif", ".jp2")
)
"""Lower-case suffixes of the files in a folder that count as images."""

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker in a JPEG file, except for those that may be in the data of a scan."""
START_OF_SCAN = 0xDA
"""The second byte of the marker before the pixels in a JPEG file."""
_ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that makes an image upright, by EXIF orientation."""


def read_image(path: str | os.PathLike[str], image_id: int | str | None = None) -> UInt8[ndarray, "h w 3"]:
    """Decode an image file to RGB by the policy of this module; raise DataError if that is impossible."""
    return read_reduced_image(path, image_id, None)[0]


def read_reduced_image(
    path: str | os.PathLike[str], image_id: int | str | None, short_side: int | None
) -> tuple[UInt8[ndarray, "h w 3"], tuple[int, int]]:
    """Decode an image file to RGB, possibly at a reduced size; also return the upright (height, width) of the file.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which is much faster, if its short side keeps at least
    ``short_side`` pixels; None always decodes at full size. The factor must divide both sides: otherwise libjpeg's last
    pixel extends beyond the image, and annotations scaled by the ratio of the sizes would be misplaced.
    """
    size = plain_jpeg_size(path)
    if size is not None and _reduction(size, short_side) == 1 and (pixels := _decode_plain_jpeg(path)) is not None:
        return pixels, size
    with image_errors_as_data_errors("image", path, image_id), open_image(path) as image:
        size = _upright_size(image)
        factor = _reduction(size, short_side)
        if factor > 1:
            image.draft(None, (image.width // factor, image.height // factor))
        return _upright_rgb(_decode(image, path)), size


def _reduction(size: tuple[int, int], short_side: int | None) -> int:
    """Return the factor (1, 2, 4 or 8) by which an image of ``size`` (height, width) may be reduced."""
    factor = 1 if short_side is None else math.gcd(*size, 8)
    while factor > 1 and min(size) < factor * (short_side or 1):
        factor //= 2
    return factor


def _decode_plain_jpeg(path: str | os.PathLike[str]) -> UInt8[ndarray, "h w 3"] | None:
    """Decode a JPEG file that passed :func:`plain_jpeg_size`; return None if Pillow has to do it.

    The pixels are the same as Pillow's, since both use libjpeg-turbo, in less than half of the time. A marker in the
    data of a scan is a sign of damage: Pillow would report missing pixels where OpenCV would fill in gray.
    """
    import cv2

    try:
        data = Path(path).read_bytes()
        marker = _MARKER.search(data, data.find(b"\xff\xda") + 2)
        if marker is None or marker.start() != len(data) - 2:
            return None
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except (OSError, cv2.error):
        return None
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def decode_image(data: bytes) -> UInt8[ndarray, "h w 3"]:
    """Decode the bytes of an image file to RGB by the policy of this module; raise DataError if that is impossible."""
    with image_errors_as_data_errors("image", "bytes of an image"), open_image(io.BytesIO(data)) as image:
        return _upright_rgb(_decode(image, data))


def encoded_image_size(data: bytes) -> tuple[int, int]:
    """Return the upright (height, width) of the bytes of an image file from its header, without decoding it.

    Raises DataError if they are no image.
    """
    with image_errors_as_data_errors("image", "bytes of an image"), open_image(io.BytesIO(data)) as image:
        return _upright_size(image)


def pillow_to_rgb(image: Image.Image) -> UInt8[ndarray, "h w 3"]:
    """Convert a Pillow image to RGB by the policy of this module, but ignore its EXIF orientation."""
    with image_errors_as_data_errors("image", getattr(image, "filename", "") or "PIL image"):
        return np.array(_to_rgb(image))


def _upright_rgb(image: Image.Image) -> UInt8[ndarray, "h w 3"]:
    """Convert a decoded image to RGB, rotated upright by its EXIF orientation."""
    transpose = _TRANSPOSES.get(_orientation(image))
    return np.array(_to_rgb(image if transpose is None else image.transpose(transpose)))


def image_size(path: str | os.PathLike[str], image_id: int | str | None = None) -> tuple[int, int]:
    """Return the upright (height, width) of an image file from its header; raise DataError if it cannot be opened."""
    size = plain_image_size(path)
    if size is not None:
        return size
    with image_errors_as_data_errors("image", path, image_id), open_image(path) as image:
        return _upright_size(image)


def check_image(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, image_id: int | str | None = None
) -> list[str]:
    """Check that a file is a usable image and, if ``size`` is given, that it has this upright (height, width).

    A JPEG, PNG or WebP file with an intact end is not decoded. Returns the cases for the data report
    (``jpeg-without-end``); raises DataError for a file that cannot be used.
    """
    plain = plain_image_size(path)
    actual = image_size(path, image_id) if plain is None else plain
    if size is not None and actual != size:
        swapped = actual == size[::-1]
        raise DataError(
            f"the annotation file says {size[0]}x{size[1]} (height x width), the image is {actual[0]}x{actual[1]}",
            "the sizes are swapped: it was annotated without its EXIF rotation"
            if swapped
            else "annotate this image again",
            case="wrong-size",
            file=path,
            image_id=image_id,
        )
    if plain is not None:
        return []
    start, end = _first_and_last_bytes(path)
    is_jpeg = start.startswith(b"\xff\xd8")
    if start.startswith(b"RIFF"):  # Pillow does not open a truncated WebP file
        return []
    if (is_jpeg and end.endswith(b"\xff\xd9")) or (start == PNG_SIGNATURE and end[4:8] == b"IEND"):
        return []
    if is_jpeg and _has_end_marker(Path(path).read_bytes()):  # cameras append other data after the image
        return []
    read_image(path, image_id)
    return ["jpeg-without-end"] if is_jpeg else []


def _has_end_marker(jpeg: bytes) -> bool:
    """Return whether a JPEG file has an end marker after the start of its first scan."""
    position = 2
    while jpeg[position : position + 1] == b"\xff" and len(jpeg) > position + 3:
        if jpeg[position + 1] == START_OF_SCAN:
            return b"\xff\xd9" in jpeg[position:]
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4])
    return False


def _decode(image: Image.Image, source: str | os.PathLike[str] | bytes) -> Image.Image:
    """Load the pixels of an opened image and return it; raise OSError if pixels are missing."""
    try:
        image.load()
    except OSError:
        repaired = _without_end_marker(source) if image.format == "JPEG" else None
        if repaired is None:
            raise
        return repaired
    return image


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the (height, width) of an image after rotation by its EXIF orientation."""
    width, height = image.size
    return (width, height) if _orientation(image) >= 5 else (height, width)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if the EXIF data are missing or damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged bytes make Pillow raise exceptions of any type, see pillow.py
        return 1
    return orientation if orientation in _TRANSPOSES else 1


def _to_rgb(image: Image.Image) -> Image.Image | ndarray:
    """Convert a decoded image to 8-bit RGB; raise ValueError if the range of its samples is unknown."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(high[:, :, None], 3, axis=2)
    if image.mode in ("F", "I"):
        raise ValueError(f"samples of mode {image.mode} have no known range; save it with 8 bits per channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _first_and_last_bytes(path: str | os.PathLike[str]) -> tuple[bytes, bytes]:
    with Path(path).open("rb") as file:
        start = file.read(8)
        file.seek(max(0, file.seek(0, io.SEEK_END) - 12))
        return start, file.read()


def _without_end_marker(source: str | os.PathLike[str] | bytes) -> Image.Image | None:
    """Decode a JPEG file that lacks only its end marker; return None if blocks are missing too.

    The decoder skips bytes after the last block, but decodes bytes in place of a missing block as pixels. So all blocks
    are there if inserting noise before the end marker does not change the pixels.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    noise = bytes(range(1, 200, 3))
    images = []
    for tail in (b"\xff\xd9", noise + b"\xff\xd9"):
        image = Image.open(io.BytesIO(data + tail))
        image.load()
        images.append(image)
    return images[0] if np.array_equal(np.asarray(images[0]), np.asarray(images[1])) else None
