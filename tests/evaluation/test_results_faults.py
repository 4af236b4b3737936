"""Bad results and ground truth: each is refused with the file, image and entry, and exit code 3."""

import json
import math

import pytest

from vertebra.evaluation import evaluate_coco
from vertebra.formats import check_results, open_results, read_ground_truth, write_results
from vertebra.structures import DataError

TRUTH = {
    "images": [{"id": 1, "height": 40, "width": 60}, {"id": 2, "height": 40, "width": 60}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}],
    "categories": [{"id": 7, "name": "cat"}],
}
GOOD = {"image_id": 1, "category_id": 7, "bbox": [0.0, 0.0, 10.0, 10.0], "score": 0.5}
OTHER = GOOD | {"image_id": 2}
MASK = {"size": [40, 60], "counts": "P[2"}
BAD_ENTRIES = {
    "NaN score": ({"score": math.nan}, "bad-score: .*image_id=1: entry 1 has the score nan"),
    "infinite score": ({"score": math.inf}, "bad-score: .*entry 1 has the score inf"),
    "score as text": ({"score": "0.5"}, "bad-score: .*entry 1 has the score '0.5', which is str, not a number"),
    "score as truth value": ({"score": True}, "bad-score: .*entry 1 has the score True"),
    "NaN box": ({"bbox": [0, 0, math.nan, 10]}, "bad-box: .*image_id=1: entry 1 .*not finite"),
    "infinite box": ({"bbox": [0, 0, 10, math.inf]}, "bad-box: .*entry 1 .*not finite"),
    "inverted box": ({"bbox": [20, 20, -10, 10]}, "bad-box: .*entry 1 .*negative"),
    "upside-down box": ({"bbox": [20, 20, 10, -10]}, "bad-box: .*entry 1 .*negative"),
    "box of three": ({"bbox": [0, 0, 10]}, "bad-box: .*entry 1 .*not four numbers"),
    "box of text": ({"bbox": ["0", "0", "1", "1"]}, "bad-box: .*entry 1 .*not four numbers"),
    "no box but null": ({"bbox": None}, "bad-box: .*entry 1 .*not four numbers"),
    "unknown image": ({"image_id": 99}, "unknown-image: .*image_id=99: entry 1 is about image 99"),
    "text image id": ({"image_id": "1"}, "image-id-type: .*entry 1 .*'1', type mismatch: str, where .* has int"),
    "fractional image id": ({"image_id": 1.0}, "image-id-type: .*entry 1 .*1.0, type mismatch: float"),
    "listed image id": ({"image_id": [1]}, "image-id-type: .*entry 1 .*type mismatch: list"),
    "unknown category": ({"category_id": 8}, "unknown-category: .*image_id=1: entry 1 is about category 8"),
    "text category": ({"category_id": "cat"}, "category-id-type: .*entry 1 .*type mismatch: str"),
    "polygon": ({"segmentation": [[0, 0, 1, 0, 1, 1]]}, "bad-mask: .*entry 1 .*not compressed run lengths"),
    "uncompressed mask": ({"segmentation": MASK | {"counts": [2400]}}, "bad-mask: .*entry 1 .*not compressed"),
    "cut mask": ({"segmentation": MASK | {"counts": "P[2P"}}, "bad-mask: .*entry 1 .*end within a number"),
    "short mask": ({"segmentation": MASK | {"counts": "lW2"}}, "bad-mask: .*entry 1 .*covers 2300 pixels"),
}


def assert_exit_code(caught: pytest.ExceptionInfo[DataError]) -> None:
    """Bad data ends a command with 3, on one line."""
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "message"), BAD_ENTRIES.values(), ids=BAD_ENTRIES.keys())
def test_a_bad_entry_is_named(change, message, tmp_path):
    """By hand: one entry spoilt; the error names it from a file and from memory alike."""
    results = [OTHER, GOOD | change]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    with pytest.raises(DataError, match=message) as caught, open_results(path) as rows:
        evaluate_coco(TRUTH, rows)
    assert_exit_code(caught)
    assert caught.value.file == str(path)
    with pytest.raises(DataError, match=message):
        evaluate_coco(TRUTH, results)


@pytest.mark.parametrize("key", ["image_id", "category_id", "score", "bbox"])
def test_a_missing_field_is_named(key):
    """By hand: an entry without one of its four fields."""
    entry = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(DataError, match=f"bad-results: .*entry 1 has no {key}") as caught:
        check_results([OTHER, entry], TRUTH)
    assert_exit_code(caught)


def test_text_ids_in_the_annotations_are_a_type_mismatch():
    """The symptom: annotations with text image ids, results with numbers."""
    truth = TRUTH | {"images": [{"id": "1"}, {"id": "2"}], "annotations": []}
    with pytest.raises(DataError, match="image id 1, type mismatch: int, where the ground truth has str"):
        check_results([GOOD], truth)


def test_the_same_detection_twice_is_refused():
    """The symptom: results of an image written twice lower its score."""
    with pytest.raises(DataError, match="duplicate-result: image_id=1: entry 2 is the same as entry 0") as caught:
        check_results([GOOD, OTHER, dict(GOOD)], TRUTH)
    assert_exit_code(caught)
    near = [GOOD, GOOD | {"score": 0.4}, GOOD | {"bbox": [0.0, 0.0, 10.0, 11.0]}]
    check_results(near, TRUTH)
    check_results([GOOD | {"segmentation": MASK}, GOOD | {"segmentation": MASK | {"counts": "lW2T3"}}], TRUTH)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"results": []}', "bad-results: .*expected a list of results at the top, found a dict"),
        ("[1]", "bad-results: .*entry 0 is not an object but int"),
        ("", "bad-json: .*the file is empty"),
        ('[{"image_id": 1,\n "score"', "bad-json: .*line 2, column "),
        ("[" * 100_000, "bad-json: .*nested too deeply"),
        ("[" + "1" * 5000 + "]", "bad-json: .*no valid JSON: .*digits"),
        (b'["\xff"]', "bad-json: .*no valid UTF-8 at byte 2"),
    ],
)
def test_a_file_that_holds_no_results(content, message, tmp_path):
    """By hand: wrong structure, and text that is no JSON."""
    path = tmp_path / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught, open_results(path):
        pass
    assert_exit_code(caught)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing-file: .*does not exist"),
        ("", "bad-json: .*the file is empty"),
        (json.dumps(TRUTH)[:60], "bad-json: .*line 1, column "),
        ("[]", "bad-json: .*expected an object at the top, found a list"),
        (json.dumps({**TRUTH, "images": {}}), "no-images: .*there is no list 'images'"),
        (json.dumps({**TRUTH, "images": [{}]}), "bad-entry: .*entry 0 of images has the id None"),
        (json.dumps({**TRUTH, "images": [{"id": [1]}]}), r"bad-entry: .*entry 0 of images has the id \[1\]"),
        (json.dumps({**TRUTH, "images": [None]}), "bad-entry: .*entry 0 of images is not an object but NoneType"),
        (json.dumps({**TRUTH, "images": [{"id": True}]}), "bad-entry: .*entry 0 of images has the id True"),
        (
            json.dumps({**TRUTH, "categories": [{"id": [7], "name": "cat"}]}),
            r"bad-entry: .* categories has the id \[7\]",
        ),
        (json.dumps({**TRUTH, "categories": [{"id": 7, "name": 5}]}), "bad-entry: .* categories has the name 5"),
        (json.dumps(TRUTH).replace("40", "4" * 5000), "bad-json: .*no valid JSON: .*digits"),
        (json.dumps({**TRUTH, "categories": [{"id": 7}]}), "bad-entry: .*entry 0 of categories has the name None"),
        (json.dumps({**TRUTH, "annotations": [5]}), "bad-entry: .*entry 0 of annotations is not an object but int"),
        *(
            (json.dumps({name: TRUTH[name] for name in TRUTH if name != key}), f"no-{key}: .*no list '{key}'")
            for key in TRUTH
        ),
    ],
)
def test_a_file_that_holds_no_ground_truth(content, message, tmp_path):
    """By hand: a missing, empty, cut or differently built annotation file."""
    path = tmp_path / "annotations.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_ground_truth(path)
    assert_exit_code(caught)
    assert caught.value.file == str(path)


def test_a_folder_is_no_file(tmp_path):
    """The system's own words for what is wrong, and the path."""
    with pytest.raises(DataError, match=f"unreadable-file: {tmp_path}: cannot be read"):
        read_ground_truth(tmp_path)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    """By hand: what an editor on Windows puts before the text."""
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(TRUTH), encoding="utf-8-sig")
    assert read_ground_truth(path) == TRUTH


def test_a_number_that_json_cannot_hold_is_not_written(tmp_path):
    """A law: a file of results is always valid JSON; nothing is left where it failed."""
    with pytest.raises(DataError, match=r"non-finite-result: .*NaN or infinite") as caught:
        write_results(tmp_path / "results.json", [GOOD | {"score": math.nan}])
    assert_exit_code(caught)
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": None}, "no-shape: image_id=1: entry 1 has no segmentation"),
        (
            {"segmentation": MASK | {"size": [60, 40]}},
            r"no-shape: image_id=1: entry 1 .*\[60, 40\] in an image of \[40, 60\]",
        ),
    ],
)
def test_a_mask_that_does_not_fit_its_image(change, message):
    """By hand: pycocotools compares masks of different sizes without a word."""
    entry = TRUTH["annotations"][0] | {"segmentation": [[0, 0, 10, 0, 10, 10]]}
    result = {name: value for name, value in (GOOD | change).items() if value is not None}
    fine = GOOD | {"image_id": 2, "segmentation": MASK}
    with pytest.raises(DataError, match=message) as caught:
        evaluate_coco(TRUTH | {"annotations": [entry]}, [fine, result], task="segm")
    assert_exit_code(caught)


@pytest.mark.parametrize(
    ("section", "change", "task", "message"),
    [
        ("annotations", {"image_id": 9}, "bbox", "unknown-image: image_id=9: ann_id=1"),
        ("annotations", {"category_id": 9}, "bbox", "unknown-category: .*ann_id=1: .*category 9"),
        ("annotations", {"bbox": [0, 0, -5, 5]}, "bbox", "bad-box: .*ann_id=1: .*negative"),
        ("annotations", {"bbox": [0, 0, math.nan, 5]}, "bbox", "bad-box: .*ann_id=1: .*not finite"),
        ("annotations", {"area": math.nan}, "bbox", "bad-area: .*ann_id=1: .*area nan"),
        ("annotations", {"area": "100"}, "bbox", "bad-area: .*ann_id=1: .*area '100'"),
        ("annotations", {"area": -1}, "bbox", "bad-area: .*ann_id=1: .*area -1, which is not a finite number of 0"),
        (
            "annotations",
            {"iscrowd": "yes"},
            "bbox",
            "bad-crowd: image_id=1: ann_id=1: .*iscrowd 'yes', .*neither 0 nor 1",
        ),
        ("annotations", {"iscrowd": "0"}, "segm", "bad-crowd: image_id=1: ann_id=1: .*iscrowd '0'"),
        ("annotations", {"iscrowd": None}, "bbox", "bad-crowd: .*iscrowd None"),
        ("annotations", {"iscrowd": 2}, "bbox", "bad-crowd: .*iscrowd 2"),
        ("annotations", {"id": None, "iscrowd": 1.5}, "bbox", "bad-crowd: .*ann_id=row 0: .*iscrowd 1.5"),
        ("annotations", {"id": [1], "image_id": 9}, "bbox", "unknown-image: .*ann_id=row 0: "),
        ("annotations", {}, "segm", "no-mask: .*ann_id=1: .*no segmentation"),
        ("annotations", {"image_id": [1]}, "bbox", "image-id-type: ann_id=1: .*type mismatch: list"),
        ("images", {"height": None}, "segm", r"bad-size: image_id=1: .*size \(None, 60\).*correct its height"),
        ("images", {"height": -40}, "segm", r"bad-size: image_id=1: .*size \(-40, 60\), which is not two positive"),
        ("images", {"height": 0}, "segm", r"bad-size: image_id=1: .*size \(0, 60\), which is not two positive"),
        ("images", {"height": 1e30}, "segm", r"bad-size: image_id=1: .*size \(1e\+30, 60\), which is not two positive"),
        ("images", {"width": True}, "segm", r"bad-size: image_id=1: .*size \(40, True\), which is not two positive"),
        (
            "images",
            {"height": 10**6, "width": 10**6},
            "segm",
            "bad-size: image_id=1: .*1000000x1000000, more than 500,0",
        ),
        ("images", {"height": 45_000, "width": 45_000}, "boundary", "bad-size: image_id=1: .*45000x45000, more than 5"),
        ("images", {"width": 5 * 10**9}, "segm", "bad-size: image_id=1: .*40x5000000000, more than 500,000,000 pixels"),
        ("images", {"id": 2}, "bbox", "duplicate-image-id: .*image id 2"),
    ],
)
def test_ground_truth_that_cannot_be_scored(section, change, task, message):
    """By hand: an annotation or image spoilt; a wrong score would blame the detector."""
    spoilt = TRUTH | {section: [TRUTH[section][0] | change, *TRUTH[section][1:]]}
    with pytest.raises(DataError, match=message) as caught:
        evaluate_coco(spoilt, [], task=task)
    assert_exit_code(caught)
