"""One pass over the images of a split in threads: what the checks of pixels need to know about each image."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from ...data import Dataset
from ...formats.pillow import open_image
from ...structures import DataError

FLAT = 2.0
"""An image whose gray values have a smaller standard deviation shows nothing."""
ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageFacts:
    """Facts about the pixels of one image."""

    digest: bytes = b""
    """A hash of the file or, without a file, of the pixels."""
    fingerprint: int | None = None
    """The difference hash of the image; None for a flat or unreadable image."""
    is_flat: bool = False
    gray_levels: int | None = None
    """The number of different values that remain of a 16-bit image; None for other images."""
    is_turned: bool = False
    """Whether the file has an EXIF orientation that turns the image."""
    pixels_by_class: Int64[ndarray, "256"] | None = None
    """The number of pixels of each value of the class map; None without one."""
    problem: DataError | None = None
    """Why the image or its class map cannot be read; None if it can."""


def read_facts_of_images(dataset: Dataset, advance: Callable[[], None] = lambda: None) -> list[ImageFacts]:
    """Decode every image of a data set and return its facts; ``advance`` is called after each image."""

    def read(index: int) -> ImageFacts:
        facts = _read_facts(dataset, index)
        advance()
        return facts

    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        return list(pool.map(read, range(len(dataset))))


def _read_facts(dataset: Dataset, index: int) -> ImageFacts:
    file = dataset.file_name(index)
    try:
        has_map = dataset.task == "semantic"
        record = dataset.read(index) if has_map else dataset.read_image(index)
    except DataError as error:
        return ImageFacts(problem=error)
    gray = cv2.cvtColor(record.image, cv2.COLOR_RGB2GRAY)
    is_flat = float(gray.std()) < FLAT
    is_deep, is_turned = _read_header(file)
    return ImageFacts(
        digest=hashlib.blake2b(Path(file).read_bytes() if file else record.image.tobytes(), digest_size=16).digest(),
        fingerprint=None if is_flat else difference_hash(gray),
        is_flat=is_flat,
        gray_levels=len(np.unique(record.image[..., 0])) if is_deep else None,
        is_turned=is_turned,
        pixels_by_class=None if record.semantic is None else np.bincount(record.semantic.ravel(), minlength=256),
    )


def _read_header(file: str) -> tuple[bool, bool]:
    """Return whether an image file has 16-bit gray values, and whether an EXIF orientation turns it."""
    if not file:
        return False, False
    with open_image(file) as image:
        return image.mode.startswith("I;16"), image.getexif().get(ORIENTATION, 1) not in (0, 1)


def difference_hash(gray: UInt8[ndarray, "_ _"]) -> int:
    """Return the 64 bits that say of 8 x 8 places of an image whether it becomes brighter to the right.

    The hash hardly changes if the image is resized, compressed or brightened (N. Krawetz, "Kind of Like That", 2013).
    """
    small = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
