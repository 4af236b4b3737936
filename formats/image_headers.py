"""Fast reading of the headers of ordinary JPEG and PNG files, of which a training set has a hundred thousand.

Any other file, such as one with EXIF data or a damaged segment, is left to Pillow.
"""

import os
import struct
import zlib
from collections.abc import Collection
from typing import BinaryIO

from ..structures import MAX_PIXELS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_START_OF_SCAN, _QUANTIZATION = 0xDA, 0xDB
_PROGRESSIVE = 0xC2
_FRAMES = frozenset((0xC0, 0xC1, _PROGRESSIVE))
"""Markers of the JPEG frame types in use: baseline, extended and progressive."""
_MIN_LENGTHS = {0xE0: 7, 0xE2: 14, 0xEE: 7, 0xFE: 0, 0xC4: 0, 0xDD: 0}
"""Minimum bytes of the JPEG segments that do not affect an image's size or orientation, by marker."""
_ICC_SEGMENT, _ICC_PROFILE = 0xE2, b"ICC_PROFILE\0"
_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""The bits per channel that each PNG color type allows."""
_PNG_CHUNKS = frozenset((b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"bKGD", b"pHYs", b"sBIT", b"tIME"))
"""PNG chunks before the pixels that do not affect an image's orientation."""


def plain_image_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return the (height, width) in the header of a complete JPEG or PNG file without EXIF data.

    Returns None for other formats, files with EXIF or unknown metadata, and files that look damaged; these need Pillow.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a Path would take as long as the rest of the function
            start = file.read(2)
            if start == b"\xff\xd8":
                size = _jpeg_size(file)
            elif start == PNG_SIGNATURE[:2] and file.read(6) == PNG_SIGNATURE[2:]:
                size = _png_size(file)
            else:
                return None
    except (OSError, struct.error):
        return None
    return size if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS else None


def plain_jpeg_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return the (height, width) of a complete gray or color JPEG file without EXIF data; None for any other file.

    Returns None for progressive files too, whose pixels are in several scans.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            size = _jpeg_size(file, _FRAMES - {_PROGRESSIVE}, (1, 3)) if file.read(2) == b"\xff\xd8" else None
    except (OSError, struct.error):
        return None
    return size if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS else None


def _jpeg_size(
    file: BinaryIO, frames: Collection[int] = _FRAMES, allowed_channels: Collection[int] = (1, 3, 4)
) -> tuple[int, int] | None:
    """Return the (height, width) of a JPEG file, or None; its first two bytes have been read."""
    size = None
    while True:
        mark, marker, length = struct.unpack(">BBH", file.read(4))
        segment = file.read(length - 2) if length >= 2 else b""
        if mark != 0xFF or len(segment) != length - 2:
            return None
        if marker == _START_OF_SCAN:
            break
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack(">BHHB", segment[:6])
            if (
                marker not in frames
                or bits != 8
                or channels not in allowed_channels
                or len(segment) != 6 + 3 * channels
                or size is not None
            ):
                return None
            size = height, width
        elif marker == _QUANTIZATION:
            if not _are_quantization_tables(segment):
                return None
        elif not _is_harmless(marker, segment):
            return None
    file.seek(-2, os.SEEK_END)
    return size if file.read(2) == b"\xff\xd9" else None


def _is_harmless(marker: int, segment: bytes) -> bool:
    """Return whether a JPEG segment is well formed and of a type that does not affect an image's orientation."""
    if marker == _ICC_SEGMENT and not segment.startswith(_ICC_PROFILE):
        return False
    return marker in _MIN_LENGTHS and len(segment) >= _MIN_LENGTHS[marker]


def _are_quantization_tables(segment: bytes) -> bool:
    """Return whether a JPEG segment consists of tables of 64 values of one or two bytes each."""
    while segment:
        length = 65 if segment[0] < 16 else 129
        if len(segment) < length:
            return False
        segment = segment[length:]
    return True


def _png_size(file: BinaryIO) -> tuple[int, int] | None:
    """Return the (height, width) of a PNG file, or None; its signature has been read."""
    header = _read_chunk(file, b"IHDR")
    if header is None or len(header) != 13:
        return None
    width, height, bits, colors, compression, filters, interlaced = struct.unpack(">IIBBBBB", header)
    if bits not in _PNG_BITS.get(colors, ()) or compression or filters or interlaced > 1:
        return None
    pixels_seen = False
    while True:
        length, name = struct.unpack(">I4s", file.read(8))
        if name == b"IEND" and pixels_seen and not length:
            return (height, width) if len(file.read(5)) == 4 else None
        if name == b"IDAT":
            pixels_seen = True
            file.seek(length + 4, os.SEEK_CUR)
            continue
        file.seek(-8, os.SEEK_CUR)
        if pixels_seen or name not in _PNG_CHUNKS or _read_chunk(file, name) is None:
            return None


def _read_chunk(file: BinaryIO, wanted: bytes) -> bytes | None:
    """Return the content of the next chunk of a PNG file; None if it has another name or is damaged."""
    length, name = struct.unpack(">I4s", file.read(8))
    if name != wanted or length > 4096:
        return None
    content, checksum = file.read(length), file.read(4)
    return content if zlib.crc32(name + content).to_bytes(4, "big") == checksum else None
