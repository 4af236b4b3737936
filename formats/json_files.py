"""JSON files: fast reading with errors that name the file, and atomic writing."""

import contextlib
import gc
import gzip
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..structures import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_BYTES = 2**34
"""A file is read up to this length, so that a small compressed file cannot fill any memory."""
START_BYTES = 2**16
"""The number of bytes by which the format of a file is told."""


class RepeatedKeyError(ValueError):
    """A JSON object has the same key twice; parsers would silently use the last value."""


def require_unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict; raise RepeatedKeyError for a repeated key.

    It is meant for ``object_pairs_hook`` of :func:`json.loads`.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in values if keys.count(key) > 1)
        raise RepeatedKeyError(f"{repeated!r} is given twice in one object")
    return values


def read_file(path: str | os.PathLike[str], size: int = MAX_BYTES) -> bytes:
    """Return the content of a file, at most ``size`` bytes of it; that of a ``.gz`` file is decompressed.

    Raises DataError, naming the file, if it cannot be read.
    """
    try:
        with (gzip.open if is_compressed(path) else open)(path, "rb") as file:
            return file.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"the compressed file is damaged: {error}", "compress it again", case="bad-gzip", file=path
        ) from None
    except FileNotFoundError:
        raise DataError("the file does not exist", "check the path", case="missing-file", file=path) from None
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", "check the path", case="unreadable-file", file=path
        ) from error


def is_compressed(path: str | os.PathLike[str]) -> bool:
    """Return whether the name of a file says that it is compressed by gzip."""
    return os.fspath(path).lower().endswith(".gz")


def read_start(path: Path) -> str:
    """Return the beginning of a text file, by which its format can be told; empty if it cannot be read."""
    try:
        return read_file(path, START_BYTES).decode("utf-8-sig", "replace")
    except DataError:
        return ""


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; raise DataError, naming the file and the line, if it cannot be read or is not valid JSON."""
    return parse_json(read_file(path), path)


def parse_json(data: bytes, path: str | os.PathLike[str]) -> Any:
    """Parse JSON text that was read from ``path``; raise DataError if it is not valid JSON.

    A byte order mark is skipped. Text that the fast parser refuses is given to Python's own, which accepts ``NaN`` and
    reports the line and column of an error.
    """
    try:
        with paused_garbage_collection():
            return msgspec.json.decode(json_text(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return parse_json_slowly(data, path)


def parse_json_slowly(data: bytes, path: str | os.PathLike[str]) -> Any:
    """Parse JSON text that was read from ``path`` with Python's own parser; raise DataError as :func:`parse_json`."""

    def problem(what: str, fix: str = "write the file again") -> DataError:
        return DataError(what, fix, case="bad-json", file=path)

    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            raise problem("the file is empty") from None
        raise problem(f"not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise problem(f"not valid UTF-8 at byte {error.start}", "save it as UTF-8") from None
    except ValueError as error:  # an integer with thousands of digits
        raise problem(f"not valid JSON: {error}") from None
    except RecursionError:
        raise problem("nested too deeply for this kind of file") from None


@contextlib.contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Stop Python's garbage collection of reference cycles inside the block.

    Creating millions of objects takes a quarter to a third of the time while it is paused.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def json_text(data: bytes) -> memoryview:
    """Return the text of a JSON file without the byte order mark that some editors write."""
    return memoryview(data)[len(_BYTE_ORDER_MARK) if data.startswith(_BYTE_ORDER_MARK) else 0 :]


def require_object(value: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return ``value``, the content of a COCO annotation file; raise DataError if it is not a JSON object."""
    if not isinstance(value, dict):
        raise DataError(
            f"expected an object at the top, found a {type(value).__name__}", "give a COCO annotation file",
            case="bad-json", file=path,
        )  # fmt: skip
    return value


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically: write a temporary file beside it, then rename that."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as a JSON file atomically, see :func:`write_text`."""
    write_text(path, json.dumps(value, indent=1) + "\n")


@contextlib.contextmanager
def add_file_to_error(path: str | os.PathLike[str], error_type: type[DataError] = DataError) -> Iterator[None]:
    """Add ``path`` to a DataError that is raised inside the block and names no file, as checks of values do."""
    try:
        yield
    except error_type as error:
        if error.file is None:
            error.file = os.fspath(path)
        raise
