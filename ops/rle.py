"""COCO's run lengths, checked before native code sees them: it would read and write beyond its memory.

A mask is the lengths of its runs of 0, 1, 0 ... down the columns. They are a list, or packed into text: a number is
characters of five bits each (value + 48, lowest bits first; a sixth bit says that more follow, the highest bit of the
last one is the sign), and from the fourth number on only the difference to the number two places before is written.
"""

from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from ..structures import MAX_PIXELS

_COUNTABLE = 2**31
"""Native code counts pixels in 32 bits."""
_MAX_CHARACTERS = 7
"""Of one number: 32 bits."""


def rle_problem(segmentation: Any, size: tuple[int, int] | None = None) -> str | None:
    """What is wrong with ``{"size": [height, width], "counts": text or list}``, to be read after "the segmentation".

    ``size`` is the (height, width) of its image, where that is known. None: it is fine, and safe to decode.
    """
    if not isinstance(segmentation, dict) or "size" not in segmentation or "counts" not in segmentation:
        return "is not run lengths (size and counts)"
    own, counts = segmentation["size"], segmentation["counts"]
    if fault := size_problem(own):
        return fault
    if size is not None and tuple(own) != tuple(size):
        return f"is {own[0]}x{own[1]} (height x width) in an image of {size[0]}x{size[1]}"
    runs = _unpack(counts) if isinstance(counts, str | bytes) else _as_runs(counts)
    if isinstance(runs, str):
        return runs
    if (runs < 0).any():
        return f"has a run of the length {int(runs.min())}"
    if (covered := int(runs.sum())) != own[0] * own[1]:
        return f"covers {covered} pixels, its size says {own[0] * own[1]}"
    return None


def size_problem(size: Any) -> str | None:
    """What is wrong with the (height, width) of an image or a mask, to be read after its name."""
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return f"has the size {size!r:.80}, which is not two positive whole numbers"
    if size[0] * size[1] > MAX_PIXELS:
        return f"is {size[0]}x{size[1]}, more than {MAX_PIXELS:,} pixels"
    return None


def _as_runs(counts: Any) -> Int64[ndarray, " n"] | str:
    """A list of lengths as an array; or what is wrong with it."""
    if not isinstance(counts, list) or not all(type(run) is int and abs(run) < _COUNTABLE for run in counts):
        return f"has the counts {counts!r:.80}, which are neither text nor a list of whole numbers"
    return np.array(counts, np.int64)


def _unpack(text: str | bytes) -> Int64[ndarray, " n"] | str:
    """The lengths packed into a text; or what is wrong with it."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    values = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if ((values < 0) | (values > 63)).any():
        return f"has the counts {text!r:.80}, which hold a character that run lengths do not use"
    last = (values & 32) == 0
    if not len(values) or not last[-1]:
        return f"has the counts {text!r:.80}, which end within a number"
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        return f"has the counts {text!r:.80}, which hold a number beyond 32 bits"
    places = np.arange(len(values)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((values & 31) << (5 * places), starts)
    numbers -= np.where(values[ends] & 16, 1 << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
