"""Results files: values are read back to the last digit, and a bad entry is named with file, image and index."""

import json
import math
import random

import pytest

from vertebra.formats import (
    check_results,
    open_results,
    read_ground_truth,
    require_same_images,
    sort_results,
    write_json,
    write_results,
)
from vertebra.structures import DataError

GROUND_TRUTH = {
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
    "score as a boolean": ({"score": True}, "bad-score: .*entry 1 has the score True"),
    "NaN box": ({"bbox": [0, 0, math.nan, 10]}, "bad-box: .*image_id=1: entry 1 .*not finite"),
    "infinite box": ({"bbox": [0, 0, 10, math.inf]}, "bad-box: .*entry 1 .*not finite"),
    "box whose corner is infinite": ({"bbox": [1e308, 0, 1e308, 1]}, "bad-box: .*entry 1 .*not finite"),
    "inverted box": ({"bbox": [20, 20, -10, 10]}, "bad-box: .*entry 1 .*negative"),
    "upside-down box": ({"bbox": [20, 20, 10, -10]}, "bad-box: .*entry 1 .*negative"),
    "box of three": ({"bbox": [0, 0, 10]}, "bad-box: .*entry 1 .*not four numbers"),
    "box of text": ({"bbox": ["0", "0", "1", "1"]}, "bad-box: .*entry 1 .*not four numbers"),
    "no box but null": ({"bbox": None}, "bad-box: .*entry 1 .*not four numbers"),
    "unknown image": ({"image_id": 99}, "unknown-image: .*image_id=99: entry 1 is about image 99"),
    "text image id": ({"image_id": "1"}, "image-id-type: .*entry 1 .*'1', type mismatch: str, where .* has int"),
    "fractional image id": ({"image_id": 1.0}, "image-id-type: .*entry 1 .*1.0, type mismatch: float"),
    "image id as a list": ({"image_id": [1]}, "image-id-type: .*entry 1 .*type mismatch: list"),
    "unknown category": ({"category_id": 8}, "unknown-category: .*image_id=1: entry 1 is about category 8"),
    "text category": ({"category_id": "cat"}, "category-id-type: .*entry 1 .*type mismatch: str"),
    "polygon": ({"segmentation": [[0, 0, 1, 0, 1, 1]]}, "bad-mask: .*entry 1 .*not compressed run lengths"),
    "uncompressed mask": ({"segmentation": MASK | {"counts": [2400]}}, "bad-mask: .*entry 1 .*not compressed"),
    "cut mask": ({"segmentation": MASK | {"counts": "P[2P"}}, "bad-mask: .*entry 1 .*end within a number"),
    "short mask": ({"segmentation": MASK | {"counts": "lW2"}}, "bad-mask: .*entry 1 .*covers 2300 pixels"),
}


def assert_bad_data(caught: pytest.ExceptionInfo[DataError]) -> None:
    """Check that an error ends a command with exit code 3 and one line."""
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "message"), BAD_ENTRIES.values(), ids=BAD_ENTRIES.keys())
def test_bad_entry_is_named(change, message, tmp_path):
    """docs/faults.md rows 126-129. By hand: one bad entry; the error names it, and its file if it was read from one."""
    results = [OTHER, GOOD | change]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    with pytest.raises(DataError, match=message) as caught, open_results(path) as rows:
        check_results(rows, GROUND_TRUTH)
    assert_bad_data(caught)
    assert caught.value.file == str(path)
    with pytest.raises(DataError, match=message):
        check_results(results, GROUND_TRUTH)


@pytest.mark.parametrize("key", ["image_id", "category_id", "score", "bbox"])
def test_missing_field_is_named(key):
    """By hand: an entry without one of its four fields."""
    entry = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(DataError, match=f"bad-results: .*entry 1 has no {key}") as caught:
        check_results([OTHER, entry], GROUND_TRUTH)
    assert_bad_data(caught)


def test_string_ids_in_annotations_and_numbers_in_results_are_refused():
    """docs/faults.md row 18. Symptom: annotations with string image ids, results with numbers."""
    ground_truth = GROUND_TRUTH | {"images": [{"id": "1"}, {"id": "2"}], "annotations": []}
    with pytest.raises(DataError, match="image id 1, type mismatch: int, where the ground truth has str"):
        check_results([GOOD], ground_truth)


def test_duplicate_detection_is_refused():
    """docs/faults.md row 131. Symptom: results of an image that are written twice lower its score."""
    with pytest.raises(DataError, match="duplicate-result: image_id=1: entry 2 is the same as entry 0") as caught:
        check_results([GOOD, OTHER, dict(GOOD)], GROUND_TRUTH)
    assert_bad_data(caught)
    near = [GOOD, GOOD | {"score": 0.4}, GOOD | {"bbox": [0.0, 0.0, 10.0, 11.0]}]
    check_results(near, GROUND_TRUTH)
    check_results([GOOD | {"segmentation": MASK}, GOOD | {"segmentation": MASK | {"counts": "lW2T3"}}], GROUND_TRUTH)


def test_results_of_unknown_images_say_which_ids_are_needed():
    """docs/faults.md row 129. By hand: 50 images numbered from 1000, none of them in the ground truth; and one wrong
    id among 50."""
    images = [{"id": number} for number in range(50)]
    ground_truth = GROUND_TRUTH | {"images": images}
    with pytest.raises(DataError, match=r"it has 0 of the 50 images of the results.*vertebra predict --annotations"):
        check_results([GOOD | {"image_id": 1000 + number} for number in range(50)], ground_truth)
    mostly_known = [GOOD | {"image_id": number} for number in range(49)] + [GOOD | {"image_id": 1000}]
    with pytest.raises(DataError, match="entry 49 is about image 1000, which is not in the ground truth: correct"):
        check_results(mostly_known, ground_truth)


def test_results_of_other_images_with_the_same_ids_are_refused(tmp_path):
    """Symptom: images numbered from 1 by file name, scored against a COCO file that has these ids too: AP near 0."""
    results = tmp_path / "results.json"
    write_results(results, [GOOD])
    known = {1: "val2017/000000000139.jpg", 2: "val2017/000000000285.jpg"}
    require_same_images(results, known)
    write_json(tmp_path / "images.json", [{"id": 1, "file_name": "000000000139.png"}, {"id": 3, "file_name": "x.jpg"}])
    require_same_images(results, known)
    require_same_images(results, {1: ""})
    write_json(tmp_path / "images.json", [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}])
    with pytest.raises(DataError, match=r"other-images: .*image_id=1: .*'a\.jpg' in images\.json.*139\.jpg'") as caught:
        require_same_images(results, known)
    assert_bad_data(caught)
    assert caught.value.file == str(results)


@pytest.mark.parametrize("content", [{}, [5], [{"id": [1]}], [{"file_name": "a.jpg"}]])
def test_unrelated_images_json_is_ignored(content, tmp_path):
    """By hand: JSON of another structure beside the results."""
    write_json(tmp_path / "images.json", content)
    require_same_images(tmp_path / "results.json", {1: "b.jpg"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"results": []}', "bad-results: .*expected a list of results at the top, found a dict"),
        ("[1]", "bad-results: .*entry 0 is not an object but int"),
        ("", "bad-json: .*the file is empty"),
        ('[{"image_id": 1,\n "score"', "bad-json: .*line 2, column "),
    ],
)
def test_file_that_is_no_results_file_is_refused(content, message, tmp_path):
    """By hand: wrong structure, and text that is no JSON."""
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught, open_results(path):
        pass
    assert_bad_data(caught)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing-file: .*does not exist"),
        ("", "bad-json: .*the file is empty"),
        (json.dumps(GROUND_TRUTH)[:60], "bad-json: .*line 1, column "),
        ("[]", "bad-json: .*expected an object at the top, found a list"),
        (json.dumps({**GROUND_TRUTH, "images": {}}), "no-images: .*there is no list 'images'"),
        (json.dumps({**GROUND_TRUTH, "images": [{}]}), "bad-entry: .*entry 0 of images has the id None"),
        (json.dumps({**GROUND_TRUTH, "images": [{"id": [1]}]}), r"bad-entry: .*entry 0 of images has the id \[1\]"),
        (json.dumps({**GROUND_TRUTH, "images": [None]}), "bad-entry: .*entry 0 of images is not an object but None"),
        (json.dumps({**GROUND_TRUTH, "images": [{"id": True}]}), "bad-entry: .*entry 0 of images has the id True"),
        (
            json.dumps({**GROUND_TRUTH, "categories": [{"id": [7], "name": "cat"}]}),
            r"bad-entry: .* categories has the id \[7\]",
        ),
        (
            json.dumps({**GROUND_TRUTH, "categories": [{"id": 7, "name": 5}]}),
            "bad-entry: .* categories has the name 5",
        ),
        (json.dumps(GROUND_TRUTH).replace("40", "4" * 5000), "bad-json: .*not valid JSON: .*digits"),
        (
            json.dumps({**GROUND_TRUTH, "categories": [{"id": 7}]}),
            "bad-entry: .*entry 0 of categories has the name None",
        ),
        (json.dumps({**GROUND_TRUTH, "annotations": [5]}), "bad-entry: .*entry 0 of annotations is not an object"),
        *(
            (
                json.dumps({name: value for name, value in GROUND_TRUTH.items() if name != key}),
                f"no-{key}: .*no list '{key}'",
            )
            for key in GROUND_TRUTH
        ),
    ],
)
def test_file_that_is_no_annotation_file_is_refused(content, message, tmp_path):
    """By hand: a missing, empty, truncated or differently structured annotation file."""
    path = tmp_path / "annotations.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_ground_truth(path)
    assert_bad_data(caught)
    assert caught.value.file == str(path)


def test_byte_order_mark_is_accepted(tmp_path):
    """docs/faults.md row 27. By hand: the mark that Windows editors write before the text."""
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(GROUND_TRUTH), encoding="utf-8-sig")
    assert read_ground_truth(path) == GROUND_TRUTH


def test_nan_is_not_written_to_results(tmp_path):
    """Law: a results file is always valid JSON; a failed write leaves no file."""
    with pytest.raises(DataError, match=r"non-finite-result: .*NaN or infinite") as caught:
        write_results(tmp_path / "results.json", [GOOD | {"score": math.nan}])
    assert_bad_data(caught)
    assert not (tmp_path / "results.json").exists()


def test_results_round_trip_to_the_last_digit(tmp_path):
    """docs/faults.md row 136. Law: what is read is what was written, in the same order whatever the order before,
    byte for byte."""
    rng = random.Random(0)
    results = [
        {
            "image_id": rng.choice([1, 2]),
            "category_id": 7,
            "bbox": [rng.random() / 3, rng.random() / 7, 9 + rng.random(), 9 - rng.random()],
            "score": rng.randrange(1, 9) / 9,
        }
        for _ in range(40)
    ]
    write_results(tmp_path / "first.json", results)
    write_results(tmp_path / "second.json", rng.sample(results, len(results)))
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    with open_results(tmp_path / "first.json") as rows:
        assert rows == sort_results(results)


def test_results_are_sorted_by_image_score_category_and_box():
    """By hand: each key decides if those before it are equal."""
    ordered = [
        {"image_id": image, "category_id": category, "bbox": [left, 0.0, 1.0, 1.0], "score": score}
        for image, score, category, left in [
            (1, 0.2, 9, 5.0), (2, 0.6, 8, 4.0), (2, 0.55, 1, 3.0), (2, 0.55, 2, 1.0), (2, 0.55, 2, 2.0),
        ]
    ]  # fmt: skip
    for seed in range(5):
        assert sort_results(random.Random(seed).sample(ordered, len(ordered))) == ordered


def test_empty_results_round_trip(tmp_path):
    """Law: an empty list is a valid results file."""
    write_results(tmp_path / "none.json", [])
    with open_results(tmp_path / "none.json") as rows:
        assert rows == []
