"""COCO files as tools write them: other forms of a value that leave no doubt are used and counted."""

import json
from typing import Any

import pytest

from vertebra.data import build_dataset
from vertebra.data.from_path.coco import find_image_folder
from vertebra.evaluation import evaluate_coco
from vertebra.formats import read_ground_truth
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import open_tiny, tiny_content, totals_add_up, write_tiny

SQUARE = [10, 10, 30, 10, 30, 40, 10, 40]
# name: (section, changes of its second entry; ... deletes a field, note in the report)
FORMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "iscrowd is null": ("annotations", {"iscrowd": None}, "corrected-crowd"),
    "iscrowd is text": ("annotations", {"iscrowd": "0"}, "corrected-crowd"),
    "iscrowd is a float": ("annotations", {"iscrowd": 0.0}, "whole-float"),
    "image id of an object is a float": ("annotations", {"image_id": 11.0}, "whole-float"),
    "category id of an object is a float": ("annotations", {"category_id": 90.0}, "whole-float"),
    "annotation id is a float": ("annotations", {"id": 2.0}, "whole-float"),
    "image id is a float": ("images", {"id": 12.0}, "whole-float"),
    "size is a float": ("images", {"height": 64.0, "width": 96.0}, "whole-float"),
    "no height": ("images", {"height": ...}, "size-from-file"),
    "size is null": ("images", {"height": None, "width": None}, "size-from-file"),
}


@pytest.mark.parametrize("name", FORMS)
def test_other_form_of_a_value_is_used_and_counted(name, tmp_path):
    """docs/faults.md row 177. By hand: the objects, the ground truth and the scores are those of the file without the
    change."""
    section, changes, note = FORMS[name]
    data = tiny_content()
    entry = data[section][1]
    data[section][1] = {key: value for key, value in (entry | changes).items() if value is not ...}
    dataset, plain = open_tiny(tmp_path / "other", data), open_tiny(tmp_path / "plain")
    assert dataset.report.as_json()["noted"][note]["count"] >= 1 and totals_add_up(dataset.report)
    for index in range(4):
        assert dataset.read(index).objects.boxes.tolist() == plain.read(index).objects.boxes.tolist()
    assert dataset.ground_truth() == plain.ground_truth()
    if "height" not in changes:
        truth = read_ground_truth(tmp_path / "other" / "annotations.json")
        assert evaluate_coco(truth, []).summary == evaluate_coco(plain.ground_truth(), []).summary


def test_missing_size_of_a_missing_image_is_an_error_about_the_image(tmp_path):
    """docs/faults.md row 177. By hand: the file that should give the size does not exist."""
    data = tiny_content()
    del data["images"][1]["height"]
    data["images"][1]["file_name"] = "gone.png"
    with pytest.raises(DataError, match=r"missing-image: .*gone\.png: image_id=12"):
        open_tiny(tmp_path, data)


def test_repeated_annotation_ids_are_replaced_if_bad_data_are_skipped(tmp_path):
    """docs/faults.md row 10. By hand: ids that begin anew in every image, as some exporters write them."""
    data = tiny_content()
    for annotation, number in zip(data["annotations"], (1, 2, 1, 2, 1, 2), strict=True):
        annotation["id"] = number
    with pytest.raises(
        DataError, match=r"duplicate-annotation-id: .*image_id=12: ann_id=1: .*give every .*--bad-data=skip to ignore"
    ):
        open_tiny(tmp_path, data)
    dataset = open_tiny(tmp_path, data, "skip")
    assert dataset.report.used("annotations") == 6
    assert dataset.report.as_json()["noted"]["renumbered-id"]["count"] == 4
    ids = [entry["id"] for entry in dataset.ground_truth()["annotations"]]
    assert len(set(ids)) == 6 and ids[:2] == [1, 2]


@pytest.mark.parametrize("mask_format", ["bitmaps", "polygons"])
@pytest.mark.parametrize("part", [[], [1, 2], [10, 10, 30, 40], [10, 10, 30, 10, 30, 40, 20]])
def test_polygon_without_area_is_dropped_and_its_object_is_kept(part, mask_format, tmp_path):
    """docs/faults.md row 178. By hand: the mask, and the ground truth, are those of the usable polygon alone."""
    data = tiny_content()
    for annotation in data["annotations"]:
        annotation["segmentation"] = [SQUARE]
    plain = open_tiny(tmp_path / "plain", data, masks=True, mask_format=mask_format)
    data["annotations"][0]["segmentation"] = [part, SQUARE]
    dataset = open_tiny(tmp_path / "part", data, masks=True, mask_format=mask_format)
    assert dataset.report.as_json()["noted"]["dropped-polygon"] == {"count": 1, "ids": [1]}
    assert dataset.ground_truth() == plain.ground_truth()
    field = "masks" if mask_format == "bitmaps" else "polygon_masks"
    found, expected = (getattr(data.read(0).objects, field)[0] for data in (dataset, plain))
    assert (found == expected).all() if mask_format == "bitmaps" else repr(found) == repr(expected)


def test_objects_without_masks_can_be_scored_by_their_boxes(tmp_path):
    """By hand: an empty segmentation beside a box, as box-only exporters write it."""
    data = tiny_content()
    for annotation in data["annotations"]:
        annotation["segmentation"] = []
    open_tiny(tmp_path, data)
    (tmp_path / "file.json").write_text(json.dumps(data))
    assert evaluate_coco(read_ground_truth(tmp_path / "file.json"), []).summary["AP"] == 0


SPELLINGS = {
    "backslashes": (lambda name: f"sub\\{name}", "backslash-in-name"),
    "the folder of another computer": (lambda name: f"C:\\photos\\{name}", "other-folder"),
    "the folder that is given": (lambda name: f"images/sub/{name}", "other-folder"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_file_names_with_other_folders_are_found_if_all_are(name, tmp_path):
    """docs/faults.md row 184. By hand: as Windows and exporters write names; with one file missing none is changed."""
    spell, note = SPELLINGS[name]
    data = tiny_content()
    for image in data["images"]:
        image["file_name"] = spell(image["file_name"])
    config = write_tiny(tmp_path, data)
    (tmp_path / "images").rename(tmp_path / "sub")
    (tmp_path / "images").mkdir()
    (tmp_path / "sub").rename(tmp_path / "images" / "sub")
    if note == "other-folder":
        config = config.replace(images=tmp_path / "images" / "sub")
    dataset = build_dataset(config)
    assert dataset.report.as_json()["noted"][note]["count"] == 4 and dataset.read(0).image.shape == (64, 96, 3)
    folder = find_image_folder(config.annotations, config.images)
    assert len(build_dataset(config.replace(images=folder))) == 4
    (tmp_path / "images" / "sub" / "12.png").unlink()
    with pytest.raises(DataError, match=r"missing-image: .*\(4 of 4 images have this fault\)"):
        build_dataset(config)
