"""JSON Lines: a file with one JSON object per line, which a kill while it is written damages in its last line only."""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ..structures import DataError


class JsonLinesWriter:
    """A JSON Lines file that is appended to, one write call per line.

    If a kill has left a last line without its end, that line is removed when the file is opened. As a context manager
    it closes the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = self.path.open("ab", buffering=0)
        self._file.truncate(_complete_size(self.path))

    def __enter__(self) -> "JsonLinesWriter":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def append(self, line: str) -> None:
        """Append a line, which :func:`encode_json_line` has encoded; raise OSError if the disk is full."""
        data = line.encode("utf-8") + b"\n"
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


def encode_json_line(value: dict[str, Any]) -> str:
    """Encode an object as JSON in one line; raise DataError if a number is NaN or infinite, which JSON cannot hold."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        raise DataError(
            "a score, box or embedding is NaN or infinite, which JSON cannot hold",
            "train again with a lower learning rate", case="non-finite-result",
        ) from None  # fmt: skip


def read_json_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (position in the file, object) for each line of a JSON Lines file, except a last line without its end.

    Raises DataError with the number of a line that is not an object.
    """
    with Path(path).open("rb") as file:
        position = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield position, _parse_line(line, path, number)
            position += len(line)


def read_lines_at(path: str | os.PathLike[str], positions: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Yield the objects of the lines at these positions of a JSON Lines file, in this order."""
    with Path(path).open("rb") as file:
        for position in positions:
            file.seek(position)
            yield json.loads(file.readline())


def _parse_line(line: bytes, path: str | os.PathLike[str], number: int) -> dict[str, Any]:
    """Parse a line of a file; raise DataError if it is not a JSON object."""
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DataError(f"line {number} is not a JSON object", "remove the line", case="bad-json", file=path)
    return value


def _complete_size(path: Path) -> int:
    """Return the size in bytes of a file without what follows its last line break."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 2**16)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
