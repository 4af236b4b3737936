"""COCO's run-length encoding of masks (RLE): checked before native code sees it, encoded and decoded.

A mask is the lengths of its runs of 0, 1, 0 ... down the columns. They are a list, or packed into text: a number is
characters of five bits each (value + 48, lowest bits first; a sixth bit says that more follow, the highest bit of the
last one is the sign), and from the fourth number on only the difference to the number two before it is written.
Native code would read and write beyond its memory where the runs do not fill the mask.

The encoder is hotcoco's, imported where it is needed: reading images and checking boxes do without it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy import ndarray

from ..structures import MAX_PIXELS

_COUNTABLE = 2**31
"""Native code counts pixels in 32 bits."""
_MAX_CHARACTERS = 7
"""The most characters of one number: 32 bits."""


def rle_problem(segmentation: Any, size: tuple[int, int] | None = None) -> str | None:
    """Return what is wrong with ``{"size": [height, width], "counts": text or list}``, to be read after "the
    segmentation"; None where it is safe to decode.

    ``size`` is the (height, width) of its image, where that is known.
    """
    if not isinstance(segmentation, dict) or "size" not in segmentation or "counts" not in segmentation:
        return "is not run lengths (size and counts)"
    mask_size, counts = segmentation["size"], segmentation["counts"]
    problem = size_problem(mask_size)
    if problem is not None:
        return problem
    if size is not None and tuple(mask_size) != tuple(size):
        return f"is {mask_size[0]}x{mask_size[1]} (height x width) in an image of {size[0]}x{size[1]}"
    runs = _unpack(counts) if isinstance(counts, str | bytes) else _as_runs(counts)
    if isinstance(runs, str):
        return runs
    if (runs < 0).any():
        return f"has a run of the length {int(runs.min())}"
    covered = int(runs.sum())
    if covered != mask_size[0] * mask_size[1]:
        return f"covers {covered} pixels, its size says {mask_size[0] * mask_size[1]}"
    return None


def size_problem(size: Any) -> str | None:
    """Return what is wrong with the (height, width) of an image or a mask, to be read after its name."""
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return f"has the size {size!r:.80}, which is not two positive whole numbers"
    if size[0] * size[1] > MAX_PIXELS:
        return f"is {size[0]}x{size[1]}, more than {MAX_PIXELS:,} pixels"
    return None


def encode_mask(mask: Bool[ndarray, "h w"] | UInt8[ndarray, "h w"]) -> dict[str, Any]:
    """Return a mask as compressed run lengths whose ``counts`` are text, as a results file has them."""
    from hotcoco import mask as codec

    encoded: Any = codec.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def decode_mask(encoded: Any) -> UInt8[ndarray, "h w"]:
    """Return the pixels of compressed run lengths in which :func:`rle_problem` finds nothing wrong.

    They lie in memory column by column.
    """
    from hotcoco import mask as codec

    return codec.decode(encoded)


def encode_segmentation(segmentation: Any, size: tuple[int, int]) -> Any:
    """Return polygons, or run lengths of either form, as compressed run lengths; several polygons are united.

    ``size`` is the (height, width) of the image. :func:`segmentation_problem` must find nothing wrong with it before.
    """
    return encode_segmentations([segmentation], [size])[0]


def encode_segmentations(segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]]) -> list[Any]:
    """Return what :func:`encode_segmentation` gives for each segmentation in the image of each (height, width)."""
    from hotcoco import mask as codec

    encoded = [
        codec.frPyObjects(segmentation, height, width)
        for segmentation, (height, width) in zip(segmentations, sizes, strict=True)
    ]
    single = [parts[0] if isinstance(parts, list) and len(parts) == 1 else parts for parts in encoded]
    return [codec.merge(parts) if isinstance(parts, list) else parts for parts in single]


def mask_areas(encoded: Sequence[Any]) -> Int64[ndarray, " n"]:
    """Return the number of pixels of each of these masks, given as compressed run lengths."""
    from hotcoco import mask as codec

    return np.array([codec.area(mask) for mask in encoded], np.int64)


def _as_runs(counts: Any) -> Int64[ndarray, " n"] | str:
    """Return a list of run lengths as an array, or what is wrong with it."""
    if not isinstance(counts, list) or not all(type(run) is int and abs(run) < _COUNTABLE for run in counts):
        return f"has the counts {counts!r:.80}, which are neither text nor a list of whole numbers"
    return np.array(counts, np.int64)


def _unpack(text: str | bytes) -> Int64[ndarray, " n"] | str:
    """Return the run lengths packed into a text, or what is wrong with it."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    values = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if ((values < 0) | (values > 63)).any():
        return f"has the counts {text!r:.80}, which hold a character that run lengths do not use"
    is_last = (values & 32) == 0
    if not len(values) or not is_last[-1]:
        return f"has the counts {text!r:.80}, which end within a number"
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        return f"has the counts {text!r:.80}, which hold a number beyond 32 bits"
    positions = np.arange(len(values)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((values & 31) << (5 * positions), starts)
    numbers -= np.where(values[ends] & 16, 1 << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
