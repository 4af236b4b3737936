"""Lists of image pairs of the same and of different classes, in the format of LFW's ``pairs.txt``.

The first line has the number of folds and the number p of pairs. Each fold has p lines ``NAME i j``, for images i and j
of the same class, and then p lines ``NAME i OTHER j``, for images of different classes. Image i of a class is the file
``NAME/NAME_000i`` with any suffix. Lists of LFW's development view have a single fold, and only p in the first line.
"""

import os
import re
from dataclasses import dataclass

from ..structures import DataError
from .json_files import read_file

FIX = "use the format of LFW's pairs.txt"


@dataclass(frozen=True, slots=True)
class ImagePair:
    """A pair of images, given by their ids or, as read from a list, by their paths without suffix."""

    first: int | str
    second: int | str
    same: bool
    """Whether both images show the same class."""
    fold: int = 0
    """The fold of the pair in a cross-validation."""
    line: int = 0
    """The line of the file, counted from 1."""


def read_pairs(path: str | os.PathLike[str]) -> list[ImagePair]:
    """Read a list of pairs, in which images are given by relative paths without suffix, such as ``NAME/NAME_0001``.

    Columns are separated by tabs, or by spaces in a line without tabs. Raises DataError with the file and the line if
    the file cannot be read or is not in this format.
    """
    lines = _read_lines(path)
    folds, count = _read_header(lines, path)
    if len(lines) - 1 != folds * 2 * count:
        raise _error(
            path, f"has {len(lines) - 1} pairs, but line 1 states {folds} folds of {count} pairs of the same class and "
            f"{count} of different classes, in total {folds * 2 * count}", "bad-pair-count",
        )  # fmt: skip
    pairs = []
    for index, (line, columns) in enumerate(lines[1:]):
        same = index // count % 2 == 0
        pairs.append(_read_pair(columns, same, index // (2 * count), line, path))
    return pairs


def _read_lines(path: str | os.PathLike[str]) -> list[tuple[int, list[str]]]:
    """Return (line number, columns) of the lines that are not empty."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not valid UTF-8 at byte {error.start}", "save it as UTF-8", case="bad-pairs", file=path
        ) from None
    columns = [line.strip().split("\t") if "\t" in line.strip() else line.split() for line in text.splitlines()]
    return [(number, found) for number, found in enumerate(columns, start=1) if any(found)]


def _read_header(lines: list[tuple[int, list[str]]], path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the number of folds, and the number of pairs of the same class in each fold."""
    header = lines[0][1] if lines else []
    if len(header) not in (1, 2) or not all(_is_count(column) for column in header):
        found = " ".join(header)
        raise _error(path, f"line 1 is {found!r:.80}, expected the numbers of folds and of pairs per fold")
    return (1, int(header[0])) if len(header) == 1 else (int(header[0]), int(header[1]))


def _read_pair(columns: list[str], same: bool, fold: int, line: int, path: str | os.PathLike[str]) -> ImagePair:
    """Return the pair of one line; ``same`` says whether the line must hold a pair of the same class."""
    expected = "a name and two numbers, for images of the same class" if same else "two names, each with a number"
    if len(columns) != (3 if same else 4):
        raise _error(path, f"line {line} has {len(columns)} columns, expected {expected}")
    first, second = (columns[0], columns[-2]) if not same else (columns[0], columns[0])
    numbers = columns[1], columns[-1]
    if not all(map(_is_count, numbers)):
        raise _error(path, f"line {line} has the image numbers {' and '.join(numbers)}, expected {expected}")
    if not same and first == second:
        raise _error(path, f"line {line} has two images of {first!r}, but is among the pairs of different classes")
    if same and int(numbers[0]) == int(numbers[1]):
        raise _error(path, f"line {line} compares image {numbers[0]} of {first!r} with itself")
    names = [f"{name}/{name}_{int(number):04d}" for name, number in zip((first, second), numbers, strict=True)]
    return ImagePair(names[0], names[1], same, fold, line)


def _is_count(text: str) -> bool:
    return re.fullmatch(r"0*[1-9]\d{0,8}", text, re.ASCII) is not None


def _error(path: str | os.PathLike[str], what: str, case: str = "bad-pairs") -> DataError:
    return DataError(what, FIX, case=case, file=path)
