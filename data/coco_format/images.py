"""The entries of ``images`` in a COCO file."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from ...formats.checks import Problem, as_id, is_text
from ...formats.coco import CocoImage, Row, decode_blocks, read_row
from ...formats.coco_corrections import correct_entry
from ...structures import MAX_PIXELS, DataError
from ..report import DataReport

UNKNOWN, OUTSIDE, REFUSED = -1, -2, -3
"""Used in place of an image index: an image that the file does not list, that is outside the subset, or that is
unusable."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageTable:
    """The usable images of a COCO file, in the order of the file."""

    rows: Int64[ndarray, " m"]
    """The index of each image in ``images`` of the file."""
    ids: ndarray
    """The image ids, either all integers or all strings."""
    file_names: ndarray
    """UTF-8 bytes."""
    sizes: Int64[ndarray, "m 2"]
    """(height, width) of each image, as declared in the file."""
    index_of: Mapping[int | str, int]
    """The index in this table of each image id in the file; ``OUTSIDE`` or ``REFUSED`` for images not in the table."""

    def __len__(self) -> int:
        return len(self.ids)


def read_images(
    rows: Sequence[Row],
    report: DataReport,
    path: str | os.PathLike[str],
    subset: int | None,
    read_size: Callable[[str, int | str], tuple[int, int]],
    problems: Mapping[int, DataError] = MappingProxyType({}),
) -> ImageTable:
    """Read and check the entries of ``images``; unusable ones are rejected in the report.

    ``subset`` is the number of usable images to take from the beginning of the file; None takes all. ``read_size``
    returns the (height, width) of an image file from its name and the image id, for an entry without a size; it raises
    DataError if it cannot be read. ``problems`` are the errors, by row, about images that are already known to be
    unusable.
    """
    names: dict[int | str, str] = {}
    refused: list[int | str] = []
    used_rows, sizes = [], []
    for row, image in enumerate(_read_entries(rows, path)):
        try:
            if row in problems:
                raise problems[row]
            image = _with_size(image, read_size)
            problem = _image_problem(image)
            if problem is not None:
                raise _error(problem.case, problem.what, "correct the entry", path, image.id)
        except DataError as error:
            report.reject("images", error)
            refused += [] if image.id is None else [image.id]
            continue
        assert image.id is not None, "an image without an id has a problem"
        for case in image.corrections:
            report.note(case, image.id)
        if image.id in names:
            what = f"two images have this id: {names[image.id]!r} and {image.file_name!r}"
            raise _error("duplicate-image-id", what, "give every image a unique id", path, image.id)
        names[image.id] = image.file_name
        used_rows.append(row)
        sizes.append((image.height, image.width))
    if len({type(image_id) for image_id in names}) > 1:
        raise DataError(
            "some image ids are numbers and some text", "use only numbers or only text",
            case="mixed-image-ids", file=path,
        )  # fmt: skip
    ids = list(names)[:subset]
    index_of = dict.fromkeys(names, OUTSIDE) | dict(zip(ids, range(len(ids)), strict=True))
    return ImageTable(
        np.array(used_rows[:subset], np.int64),
        np.array(ids) if ids else np.zeros(0, np.int64),
        np.array([names[image_id].encode() for image_id in ids], dtype=bytes),
        np.array(sizes[:subset], np.int64).reshape(-1, 2),
        index_of | dict.fromkeys(refused, REFUSED),
    )


class _Entry(NamedTuple):
    """The fields of an entry as they are in the file, of any type; an invalid id is None."""

    id: int | str | None
    file_name: Any
    height: Any
    width: Any
    shown: str
    """The text of the entry for error messages."""
    corrections: tuple[str, ...] = ()
    """The cases of corrections to count."""


def _read_entries(rows: Sequence[Row], path: str | os.PathLike[str]) -> Iterator[_Entry]:
    for first, block in decode_blocks(rows, CocoImage):
        for row, image in enumerate(block, start=first):
            image_id = None if image is None else as_id(image.id)
            if image is not None and image_id is not None:
                yield _Entry(image_id, image.file_name, image.height, image.width, "")
                continue
            value = read_row(rows[row], path)
            fields = value if isinstance(value, dict) else {}
            corrections = tuple(correct_entry(fields))
            file_name, height, width = (fields.get(name) for name in ("file_name", "height", "width"))
            yield _Entry(as_id(fields.get("id")), file_name, height, width, f"{value!r:.80}", corrections)


def _with_size(image: _Entry, read_size: Callable[[str, int | str], tuple[int, int]]) -> _Entry:
    """Return an entry with the size of its image file if it has none; entries with other faults are not changed."""
    if image.id is None or not is_text(image.file_name) or (image.height is not None and image.width is not None):
        return image
    height, width = read_size(image.file_name, image.id)
    return image._replace(height=height, width=width, corrections=(*image.corrections, "size-from-file"))


def _image_problem(image: _Entry) -> Problem | None:
    """Check an entry of ``images``; return None if it is valid."""
    if image.id is None:
        return Problem("bad-image", f"an image needs an id, a number of 64 bits or text; found {image.shown}")
    if not is_text(image.file_name) or not image.file_name:
        return Problem("bad-image", f"an image needs a file_name; found {image.file_name!r:.80}")
    height, width = image.height, image.width
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        what = f"height and width must be positive whole numbers; got {height!r:.80} and {width!r:.80}"
        return Problem("bad-size", what)
    if height * width > MAX_PIXELS:
        return Problem("too-many-pixels", f"an image of {height}x{width} is more than {MAX_PIXELS:,} pixels")
    return None


def _error(case: str, what: str, fix: str, path: str | os.PathLike[str], image_id: int | str | None) -> DataError:
    return DataError(what, fix, case=case, file=path, image_id=image_id)
