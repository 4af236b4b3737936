"""Checks of all entries at once accept exactly what the checks of a single entry accept."""

import json
import math
import random

import numpy as np
import pytest
from pycocotools import mask as rle

from vertebra.formats import check_results, rle_problem, segmentation_problem
from vertebra.formats.checks import box_problem
from vertebra.formats.columns import box_column, index_column, number_column, repeated_rows
from vertebra.formats.detections import checked_mask_areas
from vertebra.formats.rle import areas_if_valid, decode_label_map
from vertebra.formats.segmentations import are_valid_segmentations
from vertebra.structures import DataError

from .test_rle import BROKEN, SIZE, valid_rle


def random_masks(seed: int, count: int) -> list[dict]:
    """Return RLE as pycocotools writes it, of few and of many runs, of images of several sizes."""
    generator = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        height, width = generator.integers(1, 90, 2).tolist()
        length = generator.integers(1, 200)
        pixels = np.repeat(generator.random(height * width // length + 1) < generator.random(), length)
        encoded = rle.encode(np.asfortranarray(pixels[: height * width].reshape(height, width, order="F"), np.uint8))
        masks.append({"size": encoded["size"], "counts": encoded["counts"].decode()})
    return masks


def spoil(text: str, generator: random.Random) -> str:
    """Return a text with one character changed, left out, added, or moved to the end."""
    place = generator.randrange(len(text))
    replaced = generator.choice(["", chr(generator.randrange(40, 120)), text[place] * 2])
    moved = text[:place] + text[place + 1 :] + text[place]
    return generator.choice([text[:place] + replaced + text[place + 1 :], moved])


def test_areas_of_masks_equal_pycocotools():
    """Oracle: pycocotools, on 3000 masks in more than one chunk, as text and as bytes."""
    masks = random_masks(0, 3000)
    expected = [int(rle.area(mask)) for mask in masks]
    for given in (masks, [mask | {"counts": mask["counts"].encode()} for mask in masks]):
        areas = areas_if_valid(given)
        assert areas is not None and areas.tolist() == expected


@pytest.mark.parametrize("name", BROKEN)
def test_invalid_mask_among_valid_ones_is_noticed(name):
    """Oracle: the check of a single mask; the neighbors of an invalid mask in memory are valid."""
    spoilt = {key: value for key, value in (valid_rle() | BROKEN[name][0]).items() if value is not ...}
    expected = rle_problem(spoilt) is None and isinstance(spoilt["counts"], str | bytes)
    valid = valid_rle()
    assert areas_if_valid([valid] * 3) is not None
    assert (areas_if_valid([valid, spoilt, valid]) is not None) == expected
    assert not expected or name == "size of another image"


def test_randomly_spoilt_masks_are_noticed():
    """Oracle: the check of a single mask; some changes give another valid mask."""
    generator = random.Random(0)
    masks = random_masks(1, 700)
    spoilt = [mask | {"counts": spoil(mask["counts"], generator)} for mask in masks]
    valid = [rle_problem(mask) is None for mask in spoilt]
    assert [areas_if_valid([masks[0], mask, masks[1]]) is not None for mask in spoilt] == valid
    assert 10 < sum(valid) < 300


VALUES = [0, 1, -1, 2.5, -0.0, math.nan, math.inf, 2**63, 10**400, True, None, "1", [1], 1e308]


def test_boxes_are_accepted_as_one_by_one():
    """Oracle: the check of a single box; the columns may only refuse more, such as numbers beyond 2^63."""
    generator = random.Random(0)
    boxes = [[generator.choice(VALUES) for _ in range(4)] for _ in range(3000)]
    boxes += [[generator.choice([0, 1, 2.5, 7]) for _ in range(4)] for _ in range(500)] + [[1, 2, 3], (1, 2, 3, 4), 5]
    accepted = [box_column([[0, 0, 1, 1], box]) is not None for box in boxes]
    valid = [box_problem(box) is None for box in boxes]
    assert all(single for single, bulk in zip(valid, accepted, strict=True) if bulk)
    assert valid[3000:] == accepted[3000:]
    assert sum(accepted) > 500


def test_ids_and_numbers_of_other_types_are_refused():
    """By hand: for a dict, True and 1.0 equal 1."""
    known = {1: 0, "a": 5}
    found = index_column([1, "a", 1], known)
    assert found is not None and found.tolist() == [0, 5, 0]
    for value in (True, 1.0, 2, "b", None, [1]):
        assert index_column([1, value], known) is None
    assert number_column([1, 2.5]) is not None
    for value in (True, None, "1", math.nan, math.inf, 2**63, 10**400):
        assert number_column([1, value]) is None


def test_segmentations_are_accepted_as_one_by_one():
    """Oracle: the check of a single segmentation, on polygons and both kinds of RLE."""
    triangle = [0, 0, 6.5, 0, 6, 8]
    valid = [
        [triangle],
        [triangle, [float(value) for value in triangle]],
        valid_rle(),
        {"size": [9, 7], "counts": [63]},
    ]
    invalid = [
        None, [], [[]], "text", 5, [triangle[:5]], [triangle[:4]], [triangle, [*triangle, 1]], [[*triangle, 1, "2"]],
        [[*triangle, True, 2]], [[*triangle, math.nan, 2]], [[*triangle, 1000, 2]], [[*triangle, 10**400, 1]],
        [tuple(triangle)], {"size": [9, 7], "counts": [62]}, {"size": [7, 9], "counts": [63]}, {},
    ]  # fmt: skip
    for segmentation in valid + invalid:
        sizes = np.array([SIZE] * 3)
        expected = segmentation_problem(segmentation, SIZE) is None
        assert expected == (segmentation in valid)
        assert are_valid_segmentations([[triangle], segmentation, valid_rle()], sizes) == expected


def test_repeated_rows_are_found():
    """Law: rows that are equal in every column, among rows that differ in one; -0.0 equals 0.0."""
    generator = np.random.default_rng(0)
    rows = np.stack(np.meshgrid(*[np.arange(7.0)] * 4), axis=-1).reshape(-1, 4)
    generator.shuffle(rows)
    assert repeated_rows(list(rows.T)).tolist() == []
    copied = np.concatenate([rows, rows[[3, 50]], -rows[(rows == 0).all(axis=1)]])
    expected = sorted([3, 50, *np.flatnonzero((rows == 0).all(axis=1)).tolist(), 2401, 2402, 2403])
    assert repeated_rows(list(copied.T)).tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_label_map_of_masks_equals_painting_them(seed):
    """Oracle: pycocotools decodes each mask; labels that do not occur have an empty mask."""
    generator = np.random.default_rng(seed)
    size = generator.integers(1, 40, 2).tolist()
    labels = np.where(generator.random(size) < 0.3, 255, generator.integers(0, 4, size)).astype(np.uint8)
    present = generator.permutation(6).tolist()
    encoded = [rle.encode(np.asfortranarray(labels == label, np.uint8)) for label in present]
    masks = [mask | {"counts": mask["counts"].decode()} for mask in encoded]
    painted = decode_label_map(masks, present, tuple(size), fill=255)
    assert painted is not None and np.array_equal(painted, labels)
    assert decode_label_map([], [], (3, 4), fill=7).tolist() == [[7] * 4] * 3


def test_overlapping_or_invalid_masks_have_no_label_map():
    """By hand: a mask twice, one of another size, and one whose runs are too short; empty masks do not overlap."""
    mask, empty = valid_rle(), {"size": [9, 7], "counts": "o1"}
    assert rle_problem(empty, SIZE) is None
    assert decode_label_map([mask, empty, empty], [1, 2, 3], SIZE, 0) is not None
    assert decode_label_map([mask, mask], [1, 2], SIZE, 0) is None
    assert decode_label_map([mask], [1], (7, 9), 0) is None
    assert decode_label_map([mask | {"counts": "d0"}], [1], SIZE, 0) is None


@pytest.mark.parametrize("field", ["bbox", "segmentation", "keypoints"])
def test_bad_entry_among_hundreds_is_named(field):
    """docs/faults.md rows 126, 129, 131. By hand: 400 valid detections, and a last one that is a copy,
    of an unknown image, or has another bad field."""
    shapes = {"bbox": [1.0, 2.0, 3.0, 4.0], "segmentation": valid_rle(), "keypoints": [1.0, 2.0, 0.5]}
    truth = {"images": [{"id": 1}, {"id": "b"}], "categories": [{"id": 7}], "annotations": []}
    results = [{"image_id": 1, "category_id": 7, "score": index / 400, field: shapes[field]} for index in range(400)]
    assert (checked_mask_areas(results, truth) is None) == (field != "segmentation")
    broken = {"bbox": [1, 2, -3, 4], "segmentation": valid_rle() | {"counts": "d0"}, "keypoints": [1.0, 2.0]}
    for change, message in (
        ({}, "entry 400 is the same as entry 5"),
        ({"image_id": 2}, "entry 400 is about image 2"),
        ({"score": "1"}, "entry 400 has the score '1'"),
        ({field: broken[field]}, "entry 400 has"),
    ):
        with pytest.raises(DataError, match=message):
            check_results([*results, results[5] | change], truth)
    check_results(json.loads(json.dumps(results)), truth)
