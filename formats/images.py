"""Reading image files: one function with one policy, and a cheap look at a file's header before training.

| the file has | the pixels are |
|---|---|
| an EXIF orientation | turned upright |
| gray, 1 bit, a palette, CMYK, YCbCr | Pillow's conversion to RGB |
| an alpha channel or transparent colour | without it; it is dropped, not blended |
| 16 bits a channel | the high byte, as OpenCV takes it |
| several frames | the first |
| floating-point or 32-bit samples | refused: their range is unknown |
| more than ``MAX_PIXELS`` | refused before it is decoded |
| a JPEG without its end marker | used if every block of it is there |
| been cut, or is no image at all | refused |

A JPEG whose middle is corrupt decodes to wrong pixels in every common library; only a checksum could tell. A PNG's is
found out when it is decoded, which the look before training does not do.
"""

import io
import math
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from ..structures import DataError
from .image_headers import PNG_SIGNATURE, plain_image_size
from .pillow import guarded, open_guarded

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"))
"""Endings, in lower case, by which a folder's images are told from its other files."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image of each EXIF orientation upright."""


def read_image(path: str | os.PathLike[str], image_id: int | str | None = None) -> UInt8[ndarray, "h w 3"]:
    """Decode an image file to RGB by the policy above; DataError where that cannot be done."""
    return read_reduced_image(path, image_id, None)[0]


def read_reduced_image(
    path: str | os.PathLike[str], image_id: int | str | None, short_side: int | None
) -> tuple[UInt8[ndarray, "h w 3"], tuple[int, int]]:
    """Decode an image file to RGB, and return it with the upright (height, width) of the file.

    A JPEG can be decoded at a half, a quarter or an eighth of its size, which is much less work. That is done where the
    short side keeps at least ``short_side`` pixels; None decodes all. The factor divides both sides: with any other,
    libjpeg's last pixel reaches beyond the image, and annotations that are scaled by the sizes would be out of place.
    """
    with guarded("image", path, image_id), open_guarded(path) as image:
        size = _upright_size(image)
        if short_side is not None:
            factor = math.gcd(*size, 8)
            while min(size) < factor * short_side and factor > 1:
                factor //= 2
            image.draft(None, (image.width // factor, image.height // factor))
        return _upright_rgb(_decode(image, path)), size


def decode_image(data: bytes) -> UInt8[ndarray, "h w 3"]:
    """Decode the bytes of an image file to RGB by the policy above; DataError where that cannot be done."""
    with guarded("image", "bytes of an image"), open_guarded(io.BytesIO(data)) as image:
        return _upright_rgb(_decode(image, data))


def pillow_to_rgb(image: Image.Image) -> UInt8[ndarray, "h w 3"]:
    """Return the pixels of a Pillow image as RGB by the policy above, but as they are: not turned upright."""
    with guarded("image", getattr(image, "filename", "") or "PIL image"):
        return np.array(_to_rgb(image))


def _upright_rgb(image: Image.Image) -> UInt8[ndarray, "h w 3"]:
    """Return a decoded image as RGB, turned as its EXIF orientation asks for."""
    turn = _TURNS.get(_orientation(image))
    return np.array(_to_rgb(image if turn is None else image.transpose(turn)))


def image_size(path: str | os.PathLike[str], image_id: int | str | None = None) -> tuple[int, int]:
    """Return the upright (height, width) of an image file from its header; DataError where it cannot be opened."""
    size = plain_image_size(path)
    if size is not None:
        return size
    with guarded("image", path, image_id), open_guarded(path) as image:
        return _upright_size(image)


def check_image(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, image_id: int | str | None = None
) -> list[str]:
    """Check that a file is an image, of the declared (height, width) where one is given.

    A JPEG, PNG or WebP file whose end is there is not decoded for that. Returns what is worth counting of it
    (``jpeg-without-end``); DataError for a file that cannot be used.
    """
    plain = plain_image_size(path)
    actual = image_size(path, image_id) if plain is None else plain
    if size is not None and actual != size:
        swapped = actual == size[::-1]
        raise DataError(
            f"the annotation file says {size[0]}x{size[1]} (height x width), the image is {actual[0]}x{actual[1]}",
            "the sizes are swapped: it was annotated without its EXIF rotation"
            if swapped
            else "annotate this image anew",
            case="wrong-size",
            file=path,
            image_id=image_id,
        )
    if plain is not None:
        return []
    start, end = _first_and_last_bytes(path)
    is_jpeg = start.startswith(b"\xff\xd8")
    if start.startswith(b"RIFF"):  # Pillow opens no cut WebP
        return []
    if (is_jpeg and end.endswith(b"\xff\xd9")) or (start == PNG_SIGNATURE and end[4:8] == b"IEND"):
        return []
    read_image(path, image_id)
    return ["jpeg-without-end"] if is_jpeg else []


def _decode(image: Image.Image, source: str | os.PathLike[str] | bytes) -> Image.Image:
    """Load the pixels of an image, and return it; OSError where some of them are missing."""
    try:
        image.load()
    except OSError:
        repaired = _without_end_marker(source) if image.format == "JPEG" else None
        if repaired is None:
            raise
        return repaired
    return image


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the (height, width) after the turn that the EXIF orientation asks for."""
    width, height = image.size
    return (width, height) if _orientation(image) >= 5 else (height, width)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where the EXIF block is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow lets its decoders' errors out, see pillow.py
        return 1
    return orientation if orientation in _TURNS else 1


def _to_rgb(image: Image.Image) -> Image.Image | ndarray:
    """Convert a decoded image to 8-bit RGB; ValueError where the range of its samples is not known."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(high[:, :, None], 3, axis=2)
    if image.mode in ("F", "I"):
        raise ValueError(f"samples of mode {image.mode} have no known range; save it with 8 bits a channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _first_and_last_bytes(path: str | os.PathLike[str]) -> tuple[bytes, bytes]:
    with Path(path).open("rb") as file:
        start = file.read(8)
        file.seek(max(0, file.seek(0, io.SEEK_END) - 12))
        return start, file.read()


def _without_end_marker(source: str | os.PathLike[str] | bytes) -> Image.Image | None:
    """Decode a JPEG file that lacks only its end marker; None where blocks of it are missing too.

    The decoder skips what follows the last block, and decodes what stands in place of a missing one as pixels. So all
    blocks are there if noise before the end marker changes nothing.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    noise = bytes(range(1, 200, 3))
    images = []
    for tail in (b"\xff\xd9", noise + b"\xff\xd9"):
        image = Image.open(io.BytesIO(data + tail))
        image.load()
        images.append(image)
    return images[0] if np.array_equal(np.asarray(images[0]), np.asarray(images[1])) else None
