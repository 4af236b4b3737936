"""COCO's run-length encoding of masks (RLE): checks, encoding and decoding.

A mask is stored as the lengths of its runs of 0, 1, 0 ... in column-major order, as a list or compressed to text. In
the text, each number is a sequence of characters with five bits each (value + 48, lowest bits first); a sixth bit says
that another character follows, and the highest of the five bits of the last character is the sign. From the fourth
number on, the difference to the number two positions before is stored. RLE must be checked before it is decoded: native
code would read and write out of bounds if the runs do not fill the mask.

The codec is hotcoco's. It is imported lazily, since reading images and checking boxes do not need it.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8
from numpy import ndarray

from ..structures import MAX_PIXELS

_COUNT_LIMIT = 2**31
"""Native code counts pixels in signed 32-bit integers."""
_MAX_CHARACTERS = 7
"""Maximum number of characters of a 32-bit number."""
_AT_ONCE = 2048
"""The number of masks whose runs are added up at a time, to limit memory."""


def rle_problem(segmentation: Any, size: tuple[int, int] | None = None) -> str | None:
    """Check RLE of the form ``{"size": [height, width], "counts": text or list}``.

    Returns None if it is safe to decode, and otherwise a description that follows "the segmentation" in a message.
    ``size`` is the (height, width) of its image if known.
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
        return f"has a run of length {int(runs.min())}"
    covered = int(runs.sum())
    if covered != mask_size[0] * mask_size[1]:
        return f"covers {covered} pixels, its size says {mask_size[0] * mask_size[1]}"
    return None


def size_problem(size: Any) -> str | None:
    """Check the (height, width) of an image or a mask; return None, or a description that follows its name."""
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return f"has the size {size!r:.80}, which is not two positive whole numbers"
    if size[0] * size[1] > MAX_PIXELS:
        return f"is {size[0]}x{size[1]}, more than {MAX_PIXELS:,} pixels"
    return None


def encode_mask(mask: Bool[ndarray, "h w"] | UInt8[ndarray, "h w"]) -> dict[str, Any]:
    """Encode a mask as compressed RLE whose ``counts`` are ``str``, as in a results file."""
    import cv2
    from hotcoco import mask as codec

    if not mask.flags.f_contiguous:  # RLE is column-major: with cv2's transpose, encoding takes a fifth of the time
        mask = cv2.transpose(mask.view(np.uint8)).T
    encoded: Any = codec.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def encode_patch(
    mask: Bool[ndarray, "h w"] | UInt8[ndarray, "h w"], corner: tuple[int, int], size: tuple[int, int]
) -> dict[str, Any]:
    """Encode the mask of an image of ``size`` (height, width) as :func:`encode_mask`, given a part of the image.

    ``corner`` is the (left, top) of the part; outside it the mask is 0. Only the columns of the part are in memory.
    """
    from hotcoco import mask as codec

    (left, top), (height, width) = corner, size
    runs = [height * width]
    if mask.size:
        columns = np.zeros((height, mask.shape[1]), np.uint8, order="F")
        columns[top : top + mask.shape[0]] = mask
        runs: list[int] = np.asarray(_unpack(encode_mask(columns)["counts"])).tolist()
        after = height * (width - left - mask.shape[1])
        runs[0] += height * left
        if len(runs) % 2:
            runs[-1] += after
        elif after:
            runs.append(after)
    encoded: Any = codec.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def decode_mask(encoded: Any) -> UInt8[ndarray, "h w"]:
    """Decode compressed RLE to a column-major array; the RLE must have passed :func:`rle_problem`."""
    from hotcoco import mask as codec

    return codec.decode(encoded)


def decode_label_map(
    masks: Sequence[Any], labels: Sequence[int], size: tuple[int, int], fill: int
) -> UInt8[ndarray, "h w"] | None:
    """Return the map of ``size`` (height, width) with the label of each mask on its pixels, and ``fill`` elsewhere.

    Masks are compressed RLE. Returns None if masks overlap or one may be invalid or of another size.
    """
    import cv2

    sizes = mask_sizes(masks)
    if sizes is None or (sizes != size).any() or areas_if_valid(masks) is None:
        return None
    runs: list[Any] = [_unpack(mask["counts"]) for mask in masks]
    ends = [np.cumsum(lengths) for lengths in runs]
    starts = np.concatenate([np.zeros(0, np.int64), *(positions[: len(positions) // 2 * 2 : 2] for positions in ends)])
    stops = np.concatenate([np.zeros(0, np.int64), *(positions[1::2] for positions in ends)])
    values = np.repeat(np.array(labels, np.uint8), [len(positions) // 2 for positions in ends])
    order = np.argsort(starts, kind="stable")
    order = order[stops[order] > starts[order]]
    starts, stops, values = starts[order], stops[order], values[order]
    if (starts[1:] < stops[:-1]).any():
        return None
    borders = np.concatenate([[0], np.stack([starts, stops], axis=1).ravel(), [size[0] * size[1]]])
    column_major = np.repeat(np.append(np.stack([np.full_like(values, fill), values], axis=1), fill), np.diff(borders))
    return cv2.transpose(column_major.astype(np.uint8).reshape(size[::-1]))


def encode_segmentation(segmentation: Any, size: tuple[int, int]) -> Any:
    """Encode a COCO ``segmentation``, polygons or RLE of either form, as compressed RLE of the union of its polygons.

    ``size`` is the (height, width) of the image. The segmentation must have passed :func:`segmentation_problem`.
    """
    return encode_segmentations([segmentation], [size])[0]


def encode_segmentations(segmentations: Sequence[Any], sizes: Sequence[tuple[int, int]]) -> list[Any]:
    """Encode many segmentations, each with the (height, width) of its image, as :func:`encode_segmentation` does."""
    from hotcoco import mask as codec

    encoded = [
        codec.frPyObjects(segmentation, height, width)
        for segmentation, (height, width) in zip(segmentations, sizes, strict=True)
    ]
    single = [parts[0] if isinstance(parts, list) and len(parts) == 1 else parts for parts in encoded]
    return [codec.merge(parts) if isinstance(parts, list) else parts for parts in single]


def mask_areas(encoded: Sequence[Any]) -> Int64[ndarray, " n"]:
    """Return the number of pixels of each mask; the masks are compressed RLE."""
    from hotcoco import mask as codec

    areas: Any = codec.area(list(encoded))
    return areas.astype(np.int64)


def areas_if_valid(masks: Sequence[Any]) -> Int64[ndarray, " n"] | None:
    """Return the number of pixels of each mask, if all masks are compressed RLE that is safe to decode.

    Returns None if a mask may be invalid; :func:`rle_problem` then gives the reason. This is many times as fast as that
    function: hotcoco checks everything except whether the runs of a mask add up to its size.
    """
    sizes = mask_sizes(masks)
    texts = [mask.get("counts") for mask in masks] if sizes is not None else []
    if sizes is None or set(map(type, texts)) not in ({str}, {bytes}, set()):
        return None
    try:
        areas = mask_areas(masks)
    except (ValueError, TypeError):  # TypeError: a lone surrogate, which JSON can express as an escape
        return None
    pixels = sizes.prod(axis=1)
    for first in range(0, len(texts), _AT_ONCE):
        chunk = slice(first, first + _AT_ONCE)
        covered = _covered_pixels(texts[chunk])
        if covered is None or not np.array_equal(covered, pixels[chunk]):
            return None
    return areas


def are_valid_masks(masks: Sequence[Any], sizes: Int64[ndarray, "n 2"]) -> Bool[ndarray, " n"]:
    """Return which masks in RLE, of either form, pass :func:`rle_problem` with the (height, width) of their images."""
    given = mask_sizes(masks)
    if given is not None and np.array_equal(given, sizes) and areas_if_valid(masks) is not None:
        return np.ones(len(masks), bool)
    pairs = zip(masks, sizes.tolist(), strict=True)
    return np.array([rle_problem(mask, (height, width)) is None for mask, (height, width) in pairs], bool)


def mask_sizes(masks: Sequence[Any]) -> Int64[ndarray, "n 2"] | None:
    """Return the (height, width) of each mask in RLE; None if one may be invalid."""
    if not set(map(type, masks)) <= {dict}:
        return None
    sizes = [mask.get("size") for mask in masks]
    if not set(map(type, sizes)) <= {list, tuple} or not set(map(len, sizes)) <= {2}:
        return None
    if not set(map(type, itertools.chain.from_iterable(sizes))) <= {int}:
        return None
    if not all(min(size) > 0 and math.prod(size) <= MAX_PIXELS for size in set(map(tuple, sizes))):
        return None
    return np.array(sizes, np.int64).reshape(-1, 2)


def _covered_pixels(texts: Sequence[Any]) -> Int32[ndarray, " n"] | None:
    """Return the sum of the runs of each compressed text, modulo 2^32; None if one is empty or ends within a number.

    Apart from that and from the sum, the texts must be valid. From the fourth on, a number is the difference from the
    run two before, so every number but the first is part of its own run and of every second run after it.
    """
    data = "".join(texts).encode() if isinstance(texts[0], str) else b"".join(texts)
    values = np.frombuffer(data, np.uint8) - 48
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    text_ends = np.cumsum(lengths)
    if not lengths.all() or (values[text_ends - 1] >= 32).any():
        return None
    # Most numbers have one character: five bits with a sign. Those with more are corrected by their first characters.
    numbers = ((values[values < 32] ^ 16) - 16).view(np.int8).astype(np.int32)
    early = np.flatnonzero(values >= 32)  # characters that another character of the same number follows
    of_number = early - np.arange(len(early))
    starts = np.flatnonzero(np.diff(of_number, prepend=-1))
    longer, counts = of_number[starts], np.diff(starts, append=len(early))
    bits = (values[early] & 31).astype(np.int32) << 5 * (np.arange(len(early)) - np.repeat(starts, counts))
    if len(longer):
        numbers[longer] = (numbers[longer] << 5 * counts) + np.add.reduceat(bits, starts)
    first = np.concatenate([[0], text_ends - np.searchsorted(early, text_ends)]).astype(np.int32)
    remaining = np.repeat(first[1:], np.diff(first)) - np.arange(len(numbers), dtype=np.int32)
    weights = (remaining + 1) >> 1
    weights[first[:-1]] = 1
    return np.add.reduceat(numbers * weights, first[:-1], dtype=np.int32)


def _as_runs(counts: Any) -> Int64[ndarray, " n"] | str:
    """Return a list of run lengths as an array, or a description of what is wrong with it."""
    if not isinstance(counts, list) or not all(type(run) is int and abs(run) < _COUNT_LIMIT for run in counts):
        return f"has the counts {counts!r:.80}, which are neither text nor a list of whole numbers"
    return np.array(counts, np.int64)


def _unpack(text: str | bytes) -> Int64[ndarray, " n"] | str:
    """Return the run lengths that are compressed to text, or a description of what is wrong with the text."""
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
