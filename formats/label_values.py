"""Values in the files of labeling tools, read with errors that say what was found."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..structures import DataError, is_number

MOST_DIGITS = 40
"""A number in text must have fewer characters."""


class ShapeError(ValueError):
    """A shape that cannot be used; the message follows "the object" and says what is wrong."""


def take_numbers(fields: Mapping[str, Any], names: Iterable[str]) -> list[float]:
    """Return fields that are finite numbers, also as text; raise ShapeError for another value."""
    return [as_float(fields.get(name), name) for name in names]


def as_float(value: Any, name: str) -> float:
    """Return a finite number, given as a number or as text; raise ShapeError for another value."""
    number = math.nan
    if is_number(value):
        number = float(value)
    elif isinstance(value, str) and len(value) < MOST_DIGITS:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
    if not math.isfinite(number):
        raise ShapeError(f"has the {name} {value!r:.80}, which is not a finite number")
    return number


def as_points(value: Any, fewest: int) -> list[float]:
    """Return a list of points [x, y] as x1, y1, x2, y2, ...; raise ShapeError if it has less than ``fewest``."""
    if not isinstance(value, list) or not all(isinstance(point, list | tuple) and len(point) == 2 for point in value):
        raise ShapeError(f"has the points {value!r:.80}, which are not pairs of numbers")
    if len(value) < fewest:
        raise ShapeError(f"has {len(value)} points, where {fewest} are needed")
    return [as_float(number, "coordinate") for point in value for number in point]


def as_dict(value: Any) -> dict[str, Any]:
    """Return a value that is a dict; an empty dict for another value."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a value that is a list; an empty list for another value."""
    return value if isinstance(value, list) else []


def as_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Return the size of an image as a file states it; None if it is not two positive whole numbers."""
    if all(type(side) is int and 0 < side < 2**31 for side in (height, width)):
        return height, width
    return None


def find_image(names: Sequence[str], folders: Sequence[Path], root: Path) -> str:
    """Return the path, relative to the root, of the first file of these names in the folders; the first if none exists.

    ``names`` are paths as a tool wrote them, perhaps on another machine: their last part is tried too.
    """
    written = [name.replace("\\", "/") for name in names if name and "\0" not in name]
    candidates = [folder / name for name in written for folder in folders]
    candidates += [folder / name.rpartition("/")[2] for name in written for folder in folders]
    found = next((path for path in candidates if _is_file(path)), candidates[0] if candidates else root / "unnamed")
    return os.path.normpath(os.path.relpath(found, root))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long
        return False


def file_problem(what: str, file: Path, tool: str, case: str = "bad-labels") -> DataError:
    """Return the error about a file that is not in the format of a tool."""
    return DataError(what, f"give a file that {tool} wrote", case=case, file=file)
