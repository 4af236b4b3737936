"""Checks of one field of many results or annotations at once, by numpy.

Each function returns the field of all entries as an array, or None if it may have a value that is not valid. A caller
then checks the entries one by one with :mod:`.checks`, whose messages name the first invalid one.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy import ndarray

from .checks import MAX_COORDINATE


def index_column(values: Sequence[Any], indices: Mapping[int | str, int]) -> Int64[ndarray, " n"] | None:
    """Return the index of each id; None if an id is not a key of ``indices``, whose values are not negative."""
    if not set(map(type, values)) <= {int, str}:  # 1.0 and True would be found as 1, but they are not valid ids
        return None
    found = [indices.get(value, -1) for value in values]
    column = np.array(found, np.int64)
    return None if (column < 0).any() else column


def number_column(values: Sequence[Any]) -> Float64[ndarray, " n"] | None:
    """Return numbers as an array; None if one may not be a finite number below 2^63."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        column = np.array(values, np.float64)
    except OverflowError:
        return None
    return column if (np.abs(column) < MAX_COORDINATE).all() else None


def list_column(values: Sequence[Any], length: int | None = None) -> Float64[ndarray, " t"] | None:
    """Return lists of numbers as one flat array; None if a list may be invalid or have another ``length``."""
    if not set(map(type, values)) <= {list, tuple} or (length is not None and not set(map(len, values)) <= {length}):
        return None
    return number_column(list(itertools.chain.from_iterable(values)))


def box_column(values: Sequence[Any]) -> Float64[ndarray, "n 4"] | None:
    """Return boxes (x, y, width, height); None if one may be invalid. A side may be 0."""
    column = list_column(values, 4)
    if column is None:
        return None
    boxes = column.reshape(-1, 4)
    return boxes if (boxes[:, 2:] >= 0).all() else None


def repeated_rows(columns: Sequence[ndarray]) -> Int64[ndarray, " k"]:
    """Return the indices of all rows that are equal to another row, and rarely of one that is not.

    ``columns`` are arrays of 64-bit numbers; they are hashed, since sorting whole rows would take ten times as long.
    """
    hashes: UInt64[ndarray, " n"] = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        values = column + 0.0 if column.dtype == np.float64 else column  # -0.0 equals 0.0 but has other bits
        hashes = (hashes ^ values.view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    order = np.argsort(hashes)
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    return np.unique(order[np.concatenate([same, same + 1])])
