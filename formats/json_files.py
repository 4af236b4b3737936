"""JSON files: read fast, with errors that name the file, and written so that a reader never sees half of one."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..structures import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file; DataError naming it where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError("the file does not exist", "check the path", case="missing-file", file=path) from None
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", "check the path", case="unreadable-file", file=path
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the value that a JSON file holds; DataError naming the file, and the line where its text breaks."""
    return parse_json(read_file(path), path)


def parse_json(data: bytes, path: str | os.PathLike[str]) -> Any:
    """Return the value of JSON text that was read from ``path``; DataError where it is no valid JSON.

    A byte order mark is skipped. What the fast parser refuses goes to Python's own, which accepts ``NaN`` and says at
    which line and column a text breaks.
    """
    try:
        return msgspec.json.decode(json_text(data))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return parse_json_slowly(data, path)


def parse_json_slowly(data: bytes, path: str | os.PathLike[str]) -> Any:
    """Return what Python's own parser makes of JSON text that was read from ``path``; DataError as in
    :func:`parse_json`."""

    def problem(what: str, fix: str = "write it anew") -> DataError:
        return DataError(what, fix, case="bad-json", file=path)

    try:
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        if not error.doc.strip():
            raise problem("the file is empty") from None
        raise problem(f"no valid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise problem(f"no valid UTF-8 at byte {error.start}", "save it as UTF-8") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise problem(f"no valid JSON: {error}") from None
    except RecursionError:
        raise problem("nested too deeply for this kind of file") from None


def json_text(data: bytes) -> memoryview:
    """Return the text of a JSON file without the byte order mark that some editors put before it."""
    return memoryview(data)[len(_BYTE_ORDER_MARK) if data.startswith(_BYTE_ORDER_MARK) else 0 :]


def require_object(value: Any, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return ``value``, read from a COCO annotation file, where it is a JSON object; DataError where it is not."""
    if not isinstance(value, dict):
        raise DataError(
            f"expected an object at the top, found a {type(value).__name__}", "give a COCO annotation file",
            case="bad-json", file=path,
        )  # fmt: skip
    return value


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file as UTF-8 through a temporary file beside it, so that a reader never sees half of it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as a JSON file, as :func:`write_text` does."""
    write_text(path, json.dumps(value, indent=1) + "\n")


@contextlib.contextmanager
def add_file_to_error(path: str | os.PathLike[str], error_type: type[DataError] = DataError) -> Iterator[None]:
    """Add ``path`` to a DataError raised inside that names no file: checks of values know no files."""
    try:
        yield
    except error_type as error:
        if error.file is None:
            error.file = os.fspath(path)
        raise
