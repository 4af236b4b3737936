"""What a COCO file may call things: its ids and names end up in numpy's arrays, file systems and logs."""

from typing import Any, TypeGuard


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it is text that UTF-8 can hold and that no reader ends early: numpy's text arrays drop a last NUL."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
    return True


def as_key(value: Any) -> int | str | None:
    """A value that can be an id: a whole number of 64 bits, or text. Others become None, which nothing is called."""
    fits = is_text(value) or (type(value) is int and -(2**63) <= value < 2**63)
    return value if fits else None
