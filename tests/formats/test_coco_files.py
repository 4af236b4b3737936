"""COCO files that are compressed, or several that are read as one."""

import gzip
import json

import pytest

from vertebra.data import CocoConfig, build_dataset
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import tiny_content, write_tiny


def test_compressed_file_equals_the_plain_one(tmp_path):
    """Law: compression changes neither the annotations nor their digest."""
    config = write_tiny(tmp_path)
    compressed = tmp_path / "annotations.json.gz"
    compressed.write_bytes(gzip.compress(config.annotations.read_bytes()))
    plain, other = build_dataset(config), build_dataset(config.replace(annotations=compressed))
    assert plain.ground_truth() == other.ground_truth() and plain.annotation_digest() == other.annotation_digest()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"{}", lambda data: data[:10] + b"x" + data[11:]]
)
def test_damaged_compressed_file_is_an_error(damage, tmp_path):
    """docs/faults.md row 205. By hand: one line that names the file."""
    config = write_tiny(tmp_path)
    compressed = tmp_path / "annotations.json.gz"
    compressed.write_bytes(damage(gzip.compress(config.annotations.read_bytes())))
    with pytest.raises(DataError, match=r"annotations\.json\.gz"):
        build_dataset(config.replace(annotations=compressed))


def write_parts(tmp_path, change=lambda first, second: None) -> CocoConfig:
    """Write the tiny data set as two files, with the annotations of one class each, as ``change`` changes them."""
    config = write_tiny(tmp_path)
    first, second = tiny_content(), tiny_content()
    for content, category in ((first, 0), (second, 1)):
        content["categories"] = [content["categories"][category]]
        wanted = content["categories"][0]["id"]
        content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] == wanted]
    change(first, second)
    for name, content in (("a.json", first), ("b.json", second)):
        (tmp_path / name).write_text(json.dumps(content))
    return config.replace(annotations=tmp_path / "a.json", more_annotations=(tmp_path / "b.json",))


def boxes_by_image(dataset) -> dict:
    """Return the sorted (class name, box) of each image, by file name."""
    truth = dataset.ground_truth()
    names = {category["id"]: category["name"] for category in truth["categories"]}
    images = {image["id"]: image["file_name"] for image in truth["images"]}
    found = {name: [] for name in images.values()}
    for entry in truth["annotations"]:
        found[images[entry["image_id"]]].append((names[entry["category_id"]], entry["bbox"]))
    return {name: sorted(boxes) for name, boxes in found.items()}


def test_files_of_the_same_images_are_united(tmp_path):
    """Law: a file per class gives the objects, the ids and the classes of the one file."""
    dataset, whole = build_dataset(write_parts(tmp_path)), build_dataset(write_tiny(tmp_path / "whole"))
    assert boxes_by_image(dataset) == boxes_by_image(whole)
    assert dataset.image_ids == whole.image_ids and dataset.category_ids == whole.category_ids


def test_files_with_the_same_ids_for_other_things(tmp_path):
    """Law: files that number other images and classes alike give the same objects, under file names as ids."""

    def renumber(first, second):
        second["categories"][0]["id"] = 7
        for entry in second["annotations"]:
            entry["category_id"] = 7
        for content, offset in ((first, 0), (second, 1)):
            for image in content["images"]:
                image["id"] = (image["id"] + offset) % 4
            for entry in content["annotations"]:
                entry["image_id"] = (entry["image_id"] + offset) % 4

    dataset, whole = build_dataset(write_parts(tmp_path, renumber)), build_dataset(write_tiny(tmp_path / "whole"))
    assert boxes_by_image(dataset) == boxes_by_image(whole)
    assert dataset.image_ids == ["11.png", "12.png", "13.png", "14.png"] and dataset.category_ids == (1, 2)


def test_error_names_the_file_and_the_id(tmp_path):
    """docs/faults.md row 205. By hand: an empty box in the second file."""

    def spoil(first, second):
        second["annotations"][0]["bbox"] = [1, 1, 0, 5]

    with pytest.raises(DataError, match=r"empty-box: .*b\.json: image_id=11: ann_id=id 2"):
        build_dataset(write_parts(tmp_path, spoil))
