"""The images that a COCO file lists."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from ...structures import MAX_PIXELS, DataError
from ..report import DataReport
from .keys import as_key, is_text


@dataclass(frozen=True, slots=True, eq=False)
class ImageTable:
    """The usable images, in the order of the file."""

    rows: Int64[ndarray, " m"]  # where each stands in the file
    ids: ndarray  # numbers or text
    file_names: ndarray  # UTF-8 bytes
    sizes: Int64[ndarray, "m 2"]  # declared (height, width)
    refused: frozenset[int | str]
    """The ids of unusable ones."""

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, count: int | None) -> "ImageTable":
        """The first images only; None keeps all."""
        return ImageTable(
            self.rows[:count], self.ids[:count], self.file_names[:count], self.sizes[:count], self.refused
        )


def read_images(images: list[Any], report: DataReport, path: str | os.PathLike[str]) -> ImageTable:
    """The usable images; what is wrong with the others goes to the report."""
    names: dict[int | str, str] = {}
    refused: set[int | str] = set()
    rows, sizes = [], []
    for row, image in enumerate(images):
        error = _image_fault(image, path)
        if error is not None:
            report.fault("images", error)
            if error.image_id is not None:
                refused.add(error.image_id)
            continue
        identity = image["id"]
        if identity in names:
            raise DataError(
                f"two images have this id: {names[identity]!r} and {image['file_name']!r}",
                "give every image an id of its own", case="duplicate-image-id", file=path, image_id=identity,
            )  # fmt: skip
        names[identity] = image["file_name"]
        rows.append(row)
        sizes.append((image["height"], image["width"]))
    if len({type(identity) for identity in names}) > 1:
        raise DataError("some image ids are numbers and some text", "use one kind", case="mixed-image-ids", file=path)
    ids = np.array(list(names)) if names else np.zeros(0, np.int64)
    file_names = np.array([name.encode() for name in names.values()], dtype=bytes)
    shapes = np.array(sizes, np.int64).reshape(-1, 2)
    return ImageTable(np.array(rows, np.int64), ids, file_names, shapes, frozenset(refused))


def _image_fault(image: Any, path: str | os.PathLike[str]) -> DataError | None:
    """What is wrong with an entry of ``images``, if anything."""
    identity = as_key(image.get("id")) if isinstance(image, dict) else None

    def fault(case: str, what: str) -> DataError:
        return DataError(what, "correct the entry", case=case, file=path, image_id=identity)

    if identity is None:
        return fault("bad-image", f"an image needs an id, a number of 64 bits or text; found {image!r:.80}")
    if not is_text(image.get("file_name")) or not image["file_name"]:
        return fault("bad-image", f"an image needs a file_name; found {image.get('file_name')!r:.80}")
    height, width = image.get("height"), image.get("width")
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        return fault("bad-size", f"height and width must be positive whole numbers; got {height!r} and {width!r}")
    if height * width > MAX_PIXELS:
        return fault("too-many-pixels", f"an image of {height}x{width} is more than {MAX_PIXELS:,} pixels")
    return None
