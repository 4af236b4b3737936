"""A check whether a value from a JSON file is a number."""

from typing import Any


def is_number(value: Any) -> bool:
    """Return whether a value from a JSON file is a float (NaN and infinity included) or an int below 2^63.

    Booleans are ints in Python, and JSON allows integers that no float can hold: neither counts as a number.
    """
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
