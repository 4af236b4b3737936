"""Faults of COCO annotation files: a fault ends with an exit code and one line; what can be corrected is counted."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vertebra.data import require_same_classes
from vertebra.evaluation import evaluate_coco
from vertebra.structures import Classes, DataError, UsageError

from ..helpers.tiny_coco_file import open_tiny, tiny_content, totals_add_up

Spoil = Callable[[dict[str, Any]], Any]


def set_in(section: str, row: int, **values) -> Spoil:
    """Return a change that sets fields of an entry; the value ... deletes the field."""

    def spoil(data: dict[str, Any]) -> None:
        for key, value in values.items():
            if value is ...:
                del data[section][row][key]
            else:
                data[section][row][key] = value

    return spoil


def drop(key: str) -> Spoil:
    """Return a change that deletes a list of the file."""
    return lambda data: data.pop(key)


def repeat(section: str, row: int) -> Spoil:
    """Return a change that repeats an entry of a list."""
    return lambda data: data[section].append(dict(data[section][row]))


# name: (how the valid file is changed, pattern of the message)
FATAL: dict[str, tuple[Spoil, str]] = {
    "no images": (drop("images"), r"no-images: .*annotations\.json: there is no list 'images'"),
    "no annotations": (drop("annotations"), r"no-annotations: .*there is no list 'annotations'"),
    "no categories": (drop("categories"), r"no-categories: .*there is no list 'categories'"),
    "empty categories": (lambda d: d.update(categories=[]), r"no-categories: .*is empty"),
    "duplicate image id": (
        set_in("images", 1, id=11),
        r"duplicate-image-id: .*image_id=11: two images have this id: '11\.png' and '12\.png'",
    ),
    "duplicate category id": (set_in("categories", 1, id=7), r"duplicate-category: .*the id 7"),
    "duplicate category name": (set_in("categories", 1, name="cat"), r"duplicate-category: .*'cat'"),
    "category whose name is no text": (set_in("categories", 1, name="\ud800"), r"bad-category: .*'.ud800'"),
    "category id beyond 64 bits": (set_in("categories", 1, id=2**70), r"bad-category: .*integer id and a name"),
    "category without name": (set_in("categories", 1, name=...), r"bad-category: .*integer id and a name"),
    "mixed image ids": (set_in("images", 1, id="12"), r"(mixed-image-ids|unknown-image)"),
    "no image at all": (lambda d: d.update(images=[], annotations=[]), r"empty-dataset: .*no image is left"),
}


@pytest.mark.parametrize("name", FATAL)
def test_broken_structure_is_an_error_even_with_skip(name, tmp_path):
    """docs/faults.md rows 5-11, 23. By hand: exit code 3, whatever --bad-data says."""
    spoil, message = FATAL[name]
    for policy in ("error", "skip"):
        data = tiny_content()
        spoil(data)
        with pytest.raises(DataError, match=message) as caught:
            open_tiny(tmp_path, data, policy)
        assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


BYTES = {
    "empty": (b"", r"bad-json: .*annotations\.json: the file is empty"),
    "blank": (b" \n", r"bad-json: .*the file is empty"),
    "cut": (json.dumps(tiny_content(), indent=1).encode()[:300], r"bad-json: .*line \d+, column \d+"),
    "list": (b"[]", r"bad-json: .*expected an object at the top, found a list"),
    "not UTF-8": (b'{"images": "\xff\xfe"}', r"bad-json: .*not valid UTF-8 at byte 12"),
    "too deep": (b"[" * 100_000, r"bad-json: .*nested too deeply"),
    "endless number": (b'{"images": ' + b"1" * 5000 + b"}", r"bad-json: .*not valid JSON"),
}


@pytest.mark.parametrize("name", BYTES)
def test_unreadable_annotation_file_is_an_error(name, tmp_path):
    """docs/faults.md rows 2-4, 27, 28. By hand: exit code 3, naming the file and the place in it."""
    content, message = BYTES[name]
    with pytest.raises(DataError, match=message) as caught:
        open_tiny(tmp_path, content)
    assert caught.value.exit_code == 3


def test_missing_annotation_file_is_an_error(tmp_path):
    """docs/faults.md row 1. By hand: exit code 3, naming the path."""
    with pytest.raises(DataError, match=r"missing-file: .*gone\.json: the file does not exist"):
        open_tiny(tmp_path, annotations=tmp_path / "gone.json")


def test_byte_order_mark_is_accepted(tmp_path):
    """docs/faults.md row 27. By hand: the file is read like one without the mark."""
    assert len(open_tiny(tmp_path, b"\xef\xbb\xbf" + json.dumps(tiny_content()).encode())) == 4


NAN = float("nan")
# name: (how annotation 2 of image 11 is changed, case, pattern of the message)
BAD_OBJECTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown image": ({"image_id": 99}, "unknown-image", "is about image 99, which is not in the file"),
    "image id as text": (
        {"image_id": "11"},
        "unknown-image",
        "image id '11', type mismatch: str, where the file has int",
    ),
    "image id as a list": ({"image_id": [11]}, "unknown-image", r"has the image id \[11\], type mismatch: list"),
    "image id that is a truth value": (
        {"image_id": True},
        "unknown-image",
        "image id True, type mismatch: bool",
    ),
    "image id beyond 64 bits": ({"image_id": 2**70}, "unknown-image", f"is about image {2**70}"),
    "image id that is no text": ({"image_id": "\ud800"}, "unknown-image", r"has the image id '.ud800'"),
    "category that is a truth value": (
        {"category_id": True},
        "unknown-category",
        "type mismatch: bool",
    ),
    "unknown category": ({"category_id": 8}, "unknown-category", "is about category 8"),
    "no category": ({"category_id": ...}, "unknown-category", "has the category id None"),
    "zero width": ({"bbox": [40, 8, 0, 30]}, "empty-box", r"has the box \[40, 8, 0, 30\], which has no area"),
    "zero height": ({"bbox": [40, 8, 30, 0]}, "empty-box", "which has no area"),
    "negative width": ({"bbox": [40, 8, -5, 30]}, "negative-box", "whose width or height is negative"),
    "NaN": ({"bbox": [NAN, 8, 30, 30]}, "non-finite-box", "is not finite"),
    "infinite": ({"bbox": [40, 8, float("inf"), 30]}, "non-finite-box", "is not finite"),
    "three numbers": ({"bbox": [40, 8, 30]}, "malformed-box", "which is not four numbers"),
    "five numbers": ({"bbox": [40, 8, 30, 30, 1]}, "malformed-box", "which is not four numbers"),
    "text": ({"bbox": ["40", "8", "30", "30"]}, "malformed-box", "which is not four numbers"),
    "truth values": ({"bbox": [True, True, True, True]}, "malformed-box", "which is not four numbers"),
    "no box": ({"bbox": ...}, "malformed-box", "which is not four numbers"),
    "box is text": ({"bbox": "40,8,30,30"}, "malformed-box", "which is not four numbers"),
    "NaN area": ({"area": NAN}, "bad-area", "has the area nan, which is not a finite number of 0 or more"),
    "area as text": ({"area": "900"}, "bad-area", "has the area '900'"),
    "negative area": ({"area": -900}, "bad-area", "has the area -900"),
    "crowd as text": ({"iscrowd": "no"}, "bad-crowd", "has the iscrowd 'no', which is neither 0 nor 1"),
    "crowd that is a count": ({"iscrowd": 2}, "bad-crowd", "has the iscrowd 2"),
    "crowd that is a share": ({"iscrowd": 0.5}, "bad-crowd", "has the iscrowd 0.5"),
    "a number beyond floats": ({"bbox": [10**400, 8, 30, 30]}, "malformed-box", "which is not four numbers"),
}


@pytest.mark.parametrize("name", BAD_OBJECTS)
def test_bad_object_is_an_error_or_skipped_and_counted(name, tmp_path):
    """docs/faults.md rows 14, 15, 26, 29-32, 37. By hand: exit code 3 naming file, image and annotation; with
    --bad-data=skip it is counted in the report."""
    changes, case, message = BAD_OBJECTS[name]
    data = tiny_content()
    set_in("annotations", 1, **changes)(data)
    with pytest.raises(
        DataError, match=rf"{case}: .*annotations\.json: .*ann_id=2: .*{message}.*--bad-data=skip"
    ) as caught:
        open_tiny(tmp_path, data)
    assert caught.value.exit_code == 3
    dataset = open_tiny(tmp_path, data, "skip")
    assert dataset.report.as_json()["skipped"]["annotations"] == {case: {"count": 1, "ids": [2]}}
    assert dataset.report.as_json()["totals"]["annotations"] == {"read": 6, "used": 5, "skipped": 1}
    assert dataset.read(0).objects.boxes.tolist() == [[10, 10, 30, 40]]
    assert [entry["id"] for entry in dataset.ground_truth()["annotations"]] == [1, 3, 4, 5, 6]


def test_annotation_that_is_not_a_dict_is_skipped(tmp_path):
    """docs/faults.md row 14. By hand: a string among the annotations."""
    data = tiny_content()
    data["annotations"].append("nonsense")
    dataset = open_tiny(tmp_path, data, "skip")
    assert dataset.report.as_json()["skipped"]["annotations"]["unknown-image"]["count"] == 1
    assert totals_add_up(dataset.report)


# name: (how the valid file is changed, note in the report)
ODD: dict[str, tuple[Spoil, str]] = {
    "annotation without id": (set_in("annotations", 1, id=...), "assigned-id"),
    "annotation without area": (set_in("annotations", 1, area=...), "computed-area"),
    "annotation whose area is null": (set_in("annotations", 1, area=None), "computed-area"),
    "partly outside": (set_in("annotations", 1, bbox=[80, 50, 30, 30]), "clipped-box"),
    "half a pixel outside": (set_in("annotations", 1, bbox=[66.5, 34.5, 30, 30]), "clipped-box"),
}


@pytest.mark.parametrize("name", ODD)
def test_correctable_annotation_is_used_and_counted(name, tmp_path):
    """docs/faults.md rows 13, 20, 33. By hand: no error, one note in the report."""
    spoil, note = ODD[name]
    data = tiny_content()
    spoil(data)
    dataset = open_tiny(tmp_path, data)
    assert dataset.report.as_json()["noted"][note]["count"] == 1
    assert dataset.report.used("annotations") == 6 and len(dataset.read(0).objects.boxes) == 2
    assert (dataset.read(0).objects.boxes <= [96, 64, 96, 64]).all()


def test_missing_optional_fields_have_defaults(tmp_path):
    """docs/faults.md rows 8, 19, 20. By hand: without info, iscrowd and area the file can be read and evaluated."""
    data = tiny_content()
    del data["info"]
    for entry in data["annotations"]:
        del entry["iscrowd"], entry["area"]
    dataset = open_tiny(tmp_path, data)
    entries = dataset.ground_truth()["annotations"]
    assert all(entry["iscrowd"] == 0 for entry in entries)
    assert evaluate_coco(dataset.ground_truth(), []).summary["APm"] == 0  # objects of 32 x 32 pixels and more


def test_boolean_iscrowd_and_null_area_are_accepted(tmp_path):
    """By hand: iscrowd given as false and true, and an area of null, which the COCO API accepts too."""
    data = tiny_content()
    data["annotations"][0].update(iscrowd=False, area=None)
    data["annotations"][1].update(iscrowd=True)
    dataset = open_tiny(tmp_path, data)
    assert dataset.read(0).objects.ignored.tolist() == [[40.5, 8.25, 70.5, 38.25]]
    entries = dataset.ground_truth()["annotations"]
    assert [entry["iscrowd"] for entry in entries] == [0, 1, 0, 1, 0, 0]
    assert not any(isinstance(entry["iscrowd"], bool) for entry in entries)
    assert evaluate_coco(dataset.ground_truth(), []).summary["APs"] == 0


@pytest.mark.parametrize(
    ("box", "case"),
    [([200, 200, 20, 20], "outside-box"), ([-30, 5, 20, 20], "outside-box"), ([40, 8, 1e-3, 30], "tiny-box")],
)
def test_boxes_outside_or_tiny_are_skipped_in_training_only(box, case, tmp_path):
    """docs/faults.md rows 34, 35. By hand: skipped and counted with bad_data=error too; the evaluator still gets the
    object."""
    data = tiny_content()
    set_in("annotations", 1, bbox=box)(data)
    dataset = open_tiny(tmp_path, data)
    assert dataset.report.as_json()["skipped"]["annotations"] == {case: {"count": 1, "ids": [2]}}
    assert totals_add_up(dataset.report)
    assert len(dataset.ground_truth()["annotations"]) == 6


def test_corners_instead_of_sizes_get_a_warning(tmp_path):
    """docs/faults.md row 36. By hand: x1 y1 x2 y2 in place of x y w h; a warning with the fraction of boxes that leave
    their image."""
    data = tiny_content()
    for entry in data["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x, y, x + width, y + height]
    warnings = open_tiny(tmp_path, data).report.warnings
    assert len(warnings) == 1 and "% of the boxes leave their image" in warnings[0]
    assert not open_tiny(tmp_path).report.warnings


@pytest.mark.parametrize("identity", [0, -3, 2**40])
def test_any_integer_is_a_category_id(identity, tmp_path):
    """docs/faults.md rows 12, 16, 17. By hand: ids are kept for the results and mapped to labels; annotation id 0 is an
    ordinary id."""
    data = tiny_content()
    set_in("categories", 0, id=identity)(data)
    for entry in data["annotations"]:
        entry["category_id"] = identity if entry["category_id"] == 7 else 90
    data["annotations"][0]["id"] = 0
    dataset = open_tiny(tmp_path, data)
    assert set(dataset.category_ids) == {identity, 90}
    assert dataset.category_ids[dataset.class_names.index("cat")] == identity
    assert dataset.read(0).objects.labels.tolist() == [
        dataset.class_names.index("cat"),
        dataset.class_names.index("dog"),
    ]


def test_image_ids_can_be_strings(tmp_path):
    """docs/faults.md row 18. By hand: all ids are strings."""
    data = tiny_content()
    for entry in data["images"]:
        entry["id"] = f"photo {entry['id']}"
    for entry in data["annotations"]:
        entry["image_id"] = f"photo {entry['image_id']}"
    dataset = open_tiny(tmp_path, data)
    assert dataset.image_ids[0] == "photo 11" and len(dataset.read(0).objects.boxes) == 2


def test_misspelt_class_suggests_the_nearest(tmp_path):
    """docs/faults.md row 21. By hand: exit code 2."""
    with pytest.raises(UsageError, match=r"there is no class 'dgo' in the annotations: did you mean 'dog'\?"):
        open_tiny(tmp_path, class_names=("cat", "dgo"))


def test_class_names_select_and_order_the_classes(tmp_path):
    """By hand: labels follow the given names; objects of other classes are left out and counted."""
    dataset = open_tiny(tmp_path, class_names=("dog",))
    assert dataset.class_names == ("dog",) and dataset.category_ids == (90,)
    assert dataset.report.as_json()["skipped"]["annotations"]["other-class"]["count"] == 4
    assert totals_add_up(dataset.report)
    assert [category["id"] for category in dataset.ground_truth()["categories"]] == [90]


def test_different_classes_for_train_and_val_are_refused(tmp_path):
    """docs/faults.md row 22. By hand: exit code 2, showing the difference."""
    both, dogs = open_tiny(tmp_path), open_tiny(tmp_path, class_names=("dog",))
    require_same_classes(both.classes, both.classes)
    with pytest.raises(UsageError, match=r"only in train: \['cat'\]"):
        require_same_classes(both.classes, dogs.classes)
    with pytest.raises(UsageError, match="another order"):
        require_same_classes(both.classes, {"detection": Classes(("dog", "cat"), both.category_ids)})


def test_empty_data_set_after_filtering_is_an_error_with_reasons(tmp_path):
    """docs/faults.md row 24. By hand: exit code 3 with the counts by reason."""
    data = tiny_content()
    data["annotations"] = []
    with pytest.raises(DataError, match=r"empty-dataset: .*4 without-objects"):
        open_tiny(tmp_path, data, keep_empty=False)


def test_images_without_objects_are_kept_and_counted(tmp_path):
    """docs/faults.md row 25. By hand: images of background alone are used unless ``keep_empty`` is false."""
    dataset = open_tiny(tmp_path)
    assert len(dataset) == 4 and len(dataset.read(2).objects.boxes) == 0
    assert dataset.report.as_json()["noted"]["image-without-objects"] == {"count": 1, "ids": [13]}
    assert len(open_tiny(tmp_path, keep_empty=False)) == 3


def test_crowds_become_ignore_regions(tmp_path):
    """docs/faults.md row 39. By hand: a crowd is neither an object nor background."""
    record = open_tiny(tmp_path).read(1).objects
    assert record.boxes.tolist() == [[0, 0, 96, 64]]
    assert record.ignored.tolist() == [[50, 20, 90, 60]]


def test_subset_takes_the_first_images(tmp_path):
    """By hand: of the images and of the ground truth for evaluation alike."""
    dataset = open_tiny(tmp_path, subset=2)
    assert dataset.image_ids == [11, 12]
    assert [entry["id"] for entry in dataset.ground_truth()["annotations"]] == [1, 2, 3, 4]
    assert totals_add_up(dataset.report)


def test_annotations_are_kept_as_arrays(tmp_path):
    """By hand: everything that is kept per object and image is an array of numbers or bytes, whose pages forked workers
    share."""
    kept = open_tiny(tmp_path).annotations
    for name in ("image_ids", "file_names", "sizes", "starts", "rows", "boxes", "labels", "crowd"):
        array = getattr(kept, name)
        assert isinstance(array, np.ndarray) and array.dtype != object, name
