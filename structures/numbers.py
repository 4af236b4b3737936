"""Numbers that are read from files."""

from typing import Any


def is_number(value: Any) -> bool:
    """Return whether a value of a JSON file is a number that can be computed with.

    Python takes true and false for numbers, and JSON has whole numbers that no float can hold.
    """
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
