"""Fast reading of COCO annotation files into typed rows, without checks of the values.

A row whose fields have the expected types becomes a :class:`CocoImage` or a :class:`CocoAnnotation`. :func:`read_row`
returns any other row as plain Python values, so that a bad entry can be reported as it is in the file. The callers
decide which entries are usable.
"""

import codecs
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from ..structures import DataError
from .coco_corrections import correct_entry
from .json_files import is_compressed, json_text, parse_json, parse_json_slowly, read_file, read_json, require_object

SECTIONS = ("images", "annotations", "categories")
ROWS_PER_BLOCK = 10_000

Row = msgspec.Raw
"""The JSON text of one entry of a section, a view into the content of the file."""
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class CocoImage(msgspec.Struct, gc=False):
    """An entry of ``images``."""

    id: _Int64 | str
    file_name: str
    height: int
    width: int


class CocoAnnotation(msgspec.Struct, gc=False):
    """An entry of ``annotations``; None for a field that is null or missing."""

    image_id: _Int64 | str
    category_id: _Int64
    id: _Int64 | None = None
    bbox: tuple[float, float, float, float] | None = None
    area: float | None = None
    iscrowd: _Int64 = 0


class RunLengths(msgspec.Struct, gc=False):
    """A mask in COCO's run-length encoding; see :mod:`.rle`."""

    size: list[int]
    counts: str | list[int]


class CocoMaskAnnotation(CocoAnnotation, gc=False):
    """An entry of ``annotations`` with its mask."""

    segmentation: list[list[float]] | RunLengths | None = None


class CocoKeypoints(msgspec.Struct, gc=False):
    """The keypoints of an entry of ``annotations``; None for a field that is null or missing."""

    keypoints: list[float] | None = None
    num_keypoints: _Int64 | None = None


T = TypeVar("T", CocoImage, CocoAnnotation, CocoMaskAnnotation, CocoKeypoints)


class Place(NamedTuple):
    """The place of an object in the files of a format other than COCO's."""

    file: str
    item: str
    """The line or the number of the object in the file, such as ``line 3``."""

    def __str__(self) -> str:
        return f"{Path(self.file).name} {self.item}"


@dataclass(slots=True)
class LabelOrigin:
    """The origin of annotations that were converted to COCO's sections: places, and what could not be converted."""

    places: list[Place] = field(default_factory=list)
    """The place of each entry of ``annotations``."""
    problems: dict[int, DataError] = field(default_factory=dict)
    """Errors about objects that cannot be used, by their row in ``annotations``."""
    image_problems: dict[int, DataError] = field(default_factory=dict)
    """Errors about images that cannot be used, or whose annotations cannot, by their row in ``images``."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(case, place) of each object that is left out because it is neither a box nor a mask."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """(case, item) of what a report counts."""


@dataclass(frozen=True, slots=True)
class CocoFile:
    """The sections of a COCO annotation file, or of annotations in another format that were converted to them."""

    digest: str
    """The SHA-256 of the content."""
    images: Sequence[Row]
    annotations: Sequence[Row]
    categories: list[Any]
    origin: LabelOrigin | None = None
    """Where converted annotations come from; None for a COCO file."""


class _Sections(msgspec.Struct, gc=False):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: msgspec.Raw


def digest_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, decompressed; raise DataError if it cannot be read."""
    if is_compressed(path):
        return hashlib.sha256(read_file(path)).hexdigest()
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return hashlib.sha256(read_file(path)).hexdigest()  # read_file raises the DataError


def read_coco_file(path: str | os.PathLike[str]) -> CocoFile:
    """Read the sections of a COCO annotation file; raise DataError if it is not a JSON object or lacks a section."""
    data = read_file(path)
    digest = hashlib.sha256(data).hexdigest()
    try:
        if not _is_utf8(data):
            return _read_slowly(data, digest, path)
        sections = msgspec.json.decode(json_text(data), type=_Sections)
        categories = parse_json(bytes(sections.categories), path)
    except (msgspec.MsgspecError, RecursionError):
        return _read_slowly(data, digest, path)
    _require_list("categories", categories, path)
    return CocoFile(digest, sections.images, sections.annotations, categories)


def decode_blocks(rows: Sequence[Row], row_type: type[T]) -> Iterator[tuple[int, list[T | None]]]:
    """Decode the rows of a section; yield blocks of them, each with the index of its first row.

    A row that does not match ``row_type`` is None.
    """
    decode_block: Any = msgspec.json.Decoder(GenericAlias(list, row_type)).decode
    decode_row: Any = msgspec.json.Decoder(row_type).decode

    def try_row(row: Row) -> T | None:
        try:
            return decode_row(row)
        except (msgspec.MsgspecError, RecursionError):
            return None

    for first in range(0, len(rows), ROWS_PER_BLOCK):
        block = rows[first : first + ROWS_PER_BLOCK]
        try:
            yield first, decode_block(b"".join((b"[", b",".join(block), b"]")))
        except (msgspec.MsgspecError, RecursionError):
            yield first, [try_row(row) for row in block]


def read_row(row: Row, path: str | os.PathLike[str]) -> Any:
    """Parse a row with Python's own parser, whatever its value is; raise DataError as for a whole file."""
    return parse_json_slowly(bytes(row), path)


def read_ground_truth(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a COCO annotation file as ground truth for the evaluation of results, corrected by :func:`correct_entry`.

    Raises DataError if it cannot be read, an image has no id, or a category has no id or name.
    """
    ground_truth = require_object(read_json(path), path)
    required: dict[str, dict[str, tuple[type, ...]]] = {
        "images": {"id": (int, str)},
        "annotations": {},
        "categories": {"id": (int,), "name": (str,)},
    }
    for section, fields in required.items():
        _require_list(section, ground_truth.get(section), path)
        for row, entry in enumerate(ground_truth[section]):
            if not isinstance(entry, dict):
                raise _bad_entry(f"entry {row} of {section} is not an object but {type(entry).__name__}", path)
            correct_entry(entry)
            for name, types in fields.items():
                if type(entry.get(name)) not in types:
                    raise _bad_entry(f"entry {row} of {section} has the {name} {entry.get(name)!r:.80}", path)
    return ground_truth


def _bad_entry(what: str, path: str | os.PathLike[str]) -> DataError:
    return DataError(what, "give a COCO annotation file", case="bad-entry", file=path)


def _require_list(section: str, value: Any, path: str | os.PathLike[str]) -> None:
    if not isinstance(value, list):
        raise DataError(f"there is no list {section!r}", "give a COCO annotation file", case=f"no-{section}", file=path)


def _read_slowly(data: bytes, digest: str, path: str | os.PathLike[str]) -> CocoFile:
    """Read a file with Python's parser, which accepts ``NaN`` and says where a file is not valid JSON."""
    value = require_object(parse_json_slowly(data, path), path)
    for section in SECTIONS:
        _require_list(section, value.get(section), path)
    images, annotations = (
        [msgspec.Raw(json.dumps(entry).encode()) for entry in value[section]] for section in ("images", "annotations")
    )
    return CocoFile(digest, images, annotations, value["categories"])


def _is_utf8(data: bytes) -> bool:
    """Return whether bytes are valid UTF-8; msgspec does not check the text of fields that it skips."""
    if data.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    step = 2**24
    try:
        for first in range(0, len(data), step):
            decoder.decode(data[first : first + step], final=first + step >= len(data))
    except UnicodeDecodeError:
        return False
    return True
