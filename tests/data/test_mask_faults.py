"""Masks of COCO files: good ones equal pycocotools', each fault ends with an exit code and one line."""

import numpy as np
import pytest
from pycocotools import mask as rle

from vertebra.evaluation import evaluate_coco
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import HEIGHT, WIDTH, open_tiny, tiny_content, totals_add_up

BOW_TIE = [10, 10, 50, 50, 50, 10, 10, 50]
GOOD = {
    "one polygon": [[10, 10, 30.5, 10, 30, 40, 11, 39.25]],
    "two polygons": [[10, 10, 20, 10, 20, 20], [40, 40, 60, 40, 60, 60, 40, 60]],
    "crossing itself": [BOW_TIE],
    "leaving the image a little": [[-5, -7, 30, -1, 110.5, 80, 3, 40]],
    "run lengths": {"size": [HEIGHT, WIDTH], "counts": [64 * 10 + 5, 20, 44, 20, 64 * 96 - 64 * 10 - 89]},
    "packed run lengths": {"size": [HEIGHT, WIDTH], "counts": "e5Y1"},
}
packed = rle.encode(np.asfortranarray(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 31 < 7, dtype=np.uint8))
GOOD["packed run lengths"] = {"size": packed["size"], "counts": packed["counts"].decode()}


def with_masks(first) -> dict:
    """Return the valid content with a mask for each object; the first one's is ``first``, and ... leaves it out."""
    data = tiny_content()
    for annotation in data["annotations"]:
        left, top, width, height = annotation["bbox"]
        right, bottom = left + width, top + height
        annotation["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
    if first is ...:
        del data["annotations"][0]["segmentation"]
    else:
        data["annotations"][0]["segmentation"] = first
    return data


# pycocotools 2.0.11 decodes in a way that numpy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", GOOD)
def test_masks_equal_pycocotools(name, tmp_path):
    """Oracle: pycocotools on the same polygons and run lengths."""
    size = (HEIGHT, WIDTH)
    data = with_masks(GOOD[name])
    masks = open_tiny(tmp_path, data, masks=True).read(0).objects.masks
    assert masks.shape == (2, HEIGHT, WIDTH)
    assert masks.dtype == np.uint8
    for mask, annotation in zip(masks, data["annotations"], strict=False):
        given = annotation["segmentation"]
        if isinstance(given, list):
            given = rle.merge(rle.frPyObjects(given, *size))
        elif isinstance(given["counts"], list):
            given = rle.frPyObjects(given, *size)
        assert np.array_equal(mask, rle.decode(given))
        assert mask.sum() > 30


FAULTY = {
    "four numbers, which pycocotools takes for a box": (
        [[10, 10, 30, 40]],
        r"bad-polygon: .*annotations\.json: image_id=11: ann_id=1: has a polygon of 4 numbers; .* needs three points",
    ),
    "two numbers": ([[10, 10]], "a polygon of 2 numbers"),
    "an empty polygon": ([[]], "a polygon of 0 numbers"),
    "no polygon": ([], "no-mask: .*ann_id=1: has no segmentation"),
    "null": (None, "no-mask: .*has no segmentation"),
    "left out": (..., "no-mask: .*has no segmentation"),
    "an odd count": ([[10, 10, 30, 10, 30, 40, 20]], "of 7 numbers; points have two each"),
    "numbers without polygons": ([10, 10, 30, 10, 30, 40], "that is not a list of numbers: 10"),
    "text": ([["a"] * 6], "that is not a list of numbers"),
    "truth values": ([[True] * 6], "that is not a list of numbers"),
    "another kind": ("e5Y1", "neither polygons nor run lengths"),
    "far away, which ends pycocotools": ([[10, 10, 1e9, 10, 30, 40]], r"leaves its image .* at \(1e\+09, 10\)"),
    "beyond floats": ([[10, 10, 10**400, 10, 30, 40]], "with a number that is too large"),
    "not a number": ([[10, 10, float("nan"), 10, 30, 40]], "a coordinate that is not finite"),
    "infinite": ([[10, 10, float("inf"), 10, 30, 40]], "a coordinate that is not finite"),
    "a good polygon and one far away": ([[10, 10, 30, 10, 30, 40], [1, 2, 1e9, 2, 3, 4]], "leaves its image"),
    "run lengths of another size": (
        {"size": [96, 64], "counts": [6144]},
        "bad-run-lengths: .*has a segmentation that is 96x64 .* in an image of 64x96",
    ),
    "run lengths that end early": ({"size": [64, 96], "counts": [10, 20]}, "covers 30 pixels, its size says 6144"),
    "run lengths that go on": ({"size": [64, 96], "counts": [6144, 1]}, "covers 6145 pixels"),
    "a negative run": ({"size": [64, 96], "counts": [6145, -1]}, "a run of length -1"),
    "packed garbage": ({"size": [64, 96], "counts": "~~garbage"}, "bad-run-lengths"),
    "packed and cut short": ({"size": [64, 96], "counts": packed["counts"].decode()[:-4]}, "bad-run-lengths"),
    "negative size": ({"size": [-64, 96], "counts": [0]}, "not two positive whole numbers"),
    "no counts": ({"size": [64, 96]}, "is not run lengths"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_unusable_mask_is_an_error_or_skipped_and_counted(name, tmp_path):
    """docs/faults.md rows 43-55. By hand: exit code 3 with the image and the object; with --bad-data=skip it is left
    out and counted."""
    segmentation, message = FAULTY[name]
    data = with_masks(segmentation)
    with pytest.raises(DataError, match=message) as caught:
        open_tiny(tmp_path, data, masks=True)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    dataset = open_tiny(tmp_path, data, policy="skip", masks=True)
    assert [case.ids for case in dataset.report.skipped["annotations"].values()] == [[1]]
    assert totals_add_up(dataset.report)
    assert dataset.read(0).objects.masks.shape == (1, HEIGHT, WIDTH)
    assert 1 not in {annotation["id"] for annotation in dataset.ground_truth()["annotations"]}


def test_file_without_masks_says_how_to_train_boxes_alone(tmp_path):
    """docs/faults.md row 55. By hand: the error says what to change in the config."""
    with pytest.raises(DataError, match="for boxes alone set masks=false and leave out the head's mask branch"):
        open_tiny(tmp_path, tiny_content(), masks=True)


@pytest.mark.parametrize("name", FAULTY)
def test_unusable_masks_do_not_matter_without_masks(name, tmp_path):
    """By hand: with ``masks=False`` the same files are read without an error."""
    dataset = open_tiny(tmp_path, with_masks(FAULTY[name][0]))
    assert len(dataset.read(0).objects.boxes) == 2
    assert dataset.read(0).objects.masks is None


def _without_file(message: str) -> str:
    """Return the pattern of an error message as the metric words it, which knows no file name."""
    return message.replace(r"annotations\.json: ", "").replace("ann_id=1: has", "ann_id=1: the annotation has")


@pytest.mark.parametrize("name", FAULTY)
def test_unusable_mask_is_refused_by_the_metric(name):
    """By hand: the same errors before native code scores the masks."""
    with pytest.raises(DataError, match=_without_file(FAULTY[name][1])):
        evaluate_coco(with_masks(FAULTY[name][0]), [], task="segm")


@pytest.mark.parametrize("empty", [[[10, 10, 10, 10, 10, 10]], {"size": [64, 96], "counts": [6144]}])
def test_empty_mask_is_used_and_reported(empty, tmp_path):
    """docs/faults.md row 58. By hand: the box is trained on and the mask is not (see the mask branch); the report
    counts it."""
    dataset = open_tiny(tmp_path, with_masks(empty), masks=True)
    assert dataset.report.noted["empty-mask"].ids == ["row 0"]
    assert not dataset.read(0).objects.masks[0].any()


def test_crowds_have_no_mask_targets(tmp_path):
    """docs/faults.md rows 39, 54. By hand: a crowd is a region to ignore, with polygons or RLE."""
    objects = open_tiny(tmp_path, with_masks(GOOD["one polygon"]), masks=True).read(1).objects
    assert len(objects.masks) == len(objects.boxes) == 1
    assert len(objects.ignored) == 1
    assert objects.masks.all()


def test_image_without_objects_has_an_empty_mask_array(tmp_path):
    """By hand: shape (0, height, width), not None."""
    assert open_tiny(tmp_path, with_masks([BOW_TIE]), masks=True).read(2).objects.masks.shape == (0, HEIGHT, WIDTH)
