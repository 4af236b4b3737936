"""Checking COCO's RLE: what pycocotools writes is accepted, and invalid RLE never reaches its native code."""

import re

import numpy as np
import pytest
from pycocotools import mask as rle

from vertebra.formats import encode_patch, rle_problem

SIZE = (9, 7)


def to_compressed_rle(mask: np.ndarray) -> dict:
    """Return a mask as pycocotools' compressed RLE."""
    return rle.encode(np.asfortranarray(mask, dtype=np.uint8))


def valid_rle() -> dict:
    """Return the RLE of a mask of a few runs: counts 20, 5, 10, 28."""
    mask = np.zeros(63, np.uint8)
    mask[20:25] = mask[35:] = 1
    encoded = to_compressed_rle(mask.reshape(SIZE, order="F"))
    return {"size": list(SIZE), "counts": encoded["counts"].decode()}


@pytest.mark.parametrize("seed", range(30))
def test_rle_of_pycocotools_is_accepted(seed):
    """Oracle: pycocotools: random masks of few and many runs, long and short; with one character less it is refused."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 400, 2).tolist()
    mask = np.repeat(generator.random((height * width + 9) // 10) < generator.random(), 10)[: height * width]
    mask = mask.reshape(height, width, order="F")
    mask ^= generator.random((height, width)) < (seed % 3) / 20
    encoded = to_compressed_rle(mask)
    for counts in (encoded["counts"], encoded["counts"].decode()):
        assert rle_problem({"size": [height, width], "counts": counts}, (height, width)) is None
        assert rle_problem({"size": [height, width], "counts": counts[:-1]}) is not None


@pytest.mark.parametrize("seed", range(30))
def test_part_of_a_mask_is_encoded_like_the_mask(seed):
    """Oracle: pycocotools on the full mask, for parts at the borders too, full ones, empty ones and none."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 60, 2).tolist()
    top, left = int(generator.integers(0, height)), int(generator.integers(0, width))
    bottom, right = int(generator.integers(top, height + 1)), int(generator.integers(left, width + 1))
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = generator.random((bottom - top, right - left)) < (0, 0.5, 1)[seed % 3]
    part = encode_patch(mask[top:bottom, left:right], (left, top), (height, width))
    assert part["counts"] == to_compressed_rle(mask)["counts"].decode() and part["size"] == [height, width]


def test_uncompressed_rle_is_accepted():
    """Oracle: pycocotools compresses it to the same mask."""
    listed = {"size": list(SIZE), "counts": [20, 5, 10, 28]}
    assert rle_problem(listed, SIZE) is None
    assert rle.frPyObjects(listed, *SIZE)["counts"].decode() == valid_rle()["counts"]
    assert rle_problem({"size": list(SIZE), "counts": [0, 63]}) is None


# name: (changes, pattern of the message)
BROKEN = {
    "no size": ({"size": ...}, r"is not run lengths \(size and counts\)"),
    "no counts": ({"counts": ...}, "is not run lengths"),
    "size of three": ({"size": [9, 7, 1]}, r"has the size \[9, 7, 1\], which is not two positive"),
    "negative size": ({"size": [-9, -7]}, "not two positive whole numbers"),
    "size as text": ({"size": ["9", "7"]}, "not two positive whole numbers"),
    "size of another image": ({"size": [7, 9]}, r"is 7x9 \(height x width\) in an image of 9x7"),
    "too short": ({"counts": [20, 5]}, "covers 25 pixels, its size says 63"),
    "too long": ({"counts": [20, 5, 10, 29]}, "covers 64 pixels, its size says 63"),
    "nothing": ({"counts": []}, "covers 0 pixels"),
    "negative run": ({"counts": [70, -7]}, "has a run of length -7"),
    "fractions": ({"counts": [20.5, 42.5]}, "neither text nor a list of whole numbers"),
    "truth values": ({"counts": [True, 62]}, "neither text nor a list of whole numbers"),
    "endless number": ({"counts": [10**400]}, "neither text nor a list of whole numbers"),
    "null": ({"counts": None}, "neither text nor a list of whole numbers"),
    "empty text": ({"counts": ""}, "end within a number"),
    "cut text": ({"counts": "PQR"}, "end within a number"),
    "short text": ({"counts": "d0"}, "covers 20 pixels"),
    "long text": ({"counts": "d0o1"}, "covers 83 pixels"),
    "negative run in text": ({"counts": "K"}, "has a run of length -5"),
    "garbage": ({"counts": "\x00\xff garbage"}, "a character that run lengths do not use"),
    "garbage bytes": ({"counts": b"\xff\xfe\x00"}, "a character that run lengths do not use"),
    "other alphabets": ({"counts": "größe"}, "a character that run lengths do not use"),
    "a lone surrogate": ({"counts": "\ud800"}, "a character that run lengths do not use"),
    "a number beyond 32 bits": ({"counts": "P" * 40 + "1"}, "a number beyond 32 bits"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_invalid_rle_is_refused_with_the_reason(name):
    """docs/faults.md rows 49-53. By hand: one fault each."""
    changes, message = BROKEN[name]
    spoilt = {key: value for key, value in (valid_rle() | changes).items() if value is not ...}
    assert re.search(message, rle_problem(spoilt, SIZE) or "fine")


@pytest.mark.parametrize("value", [None, [], [[0, 0, 1, 0, 1, 1]], "text", 5])
def test_values_that_are_no_rle_are_refused(value):
    """By hand: polygons among them."""
    assert rle_problem(value) == "is not run lengths (size and counts)"


@pytest.mark.parametrize("size", [(10**6, 10**6), (22_400, 22_400), (1, 500_000_001)])
def test_rle_above_the_pixel_limit_is_refused(size):
    """docs/faults.md row 60. By hand: the same limit as for images, checked before anything is allocated; and its
    control."""
    fault = rle_problem({"size": list(size), "counts": [size[0] * size[1]]})
    assert fault == f"is {size[0]}x{size[1]}, more than 500,000,000 pixels"
    assert rle_problem({"size": [20_000, 25_000], "counts": [500_000_000]}) is None
