"""Data sets without an object to learn from: no training on nothing in silence."""

import pytest

from vertebra.data import HashSplitConfig, build_dataset, require_objects, warn_without_objects
from vertebra.structures import DataError

from ..helpers.tiny_coco_file import open_tiny, tiny_content, write_tiny

# name: (change of every annotation, changes of the config, pattern of the message)
NOTHING = {
    "half a pixel": (
        lambda annotation: annotation.update(bbox=[20, 20, 0.5, 0.5]), {}, "6 tiny-box: boxes are in pixels",
    ),
    "crowds": (lambda annotation: annotation.update(iscrowd=1), {}, r"6 crowd: iscrowd=1 marks groups"),
    "outside": (lambda annotation: annotation.update(bbox=[200, 200, 20, 20]), {}, r"6 outside-box: boxes are x, y"),
    "another class": (lambda annotation: annotation.update(category_id=90), {"class_names": ("cat",)}, "6 other-class"),
}  # fmt: skip


@pytest.mark.parametrize("policy", ["error", "skip", "skip-any"])
@pytest.mark.parametrize("name", NOTHING)
def test_nothing_to_learn_is_an_error_with_the_commonest_reason(name, policy, tmp_path):
    """docs/faults.md row 179. By hand: the objects are left out for one reason; the message counts and cures it."""
    change, config, message = NOTHING[name]
    data = tiny_content()
    for annotation in data["annotations"]:
        change(annotation)
    dataset = open_tiny(tmp_path, data, policy, **config)
    with pytest.raises(DataError, match=rf"nothing-to-learn: .*annotations\.json: .* 4 images: {message}") as caught:
        require_objects(dataset)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("count", "policy"), [(6, "error"), (6, "skip"), (4, "skip-any"), (2, "error")])
def test_boxes_that_are_fractions_are_an_error_if_most_are(count, policy, tmp_path):
    """docs/faults.md row 180. By hand: boxes divided by the size of their image, as YOLO files have them."""
    data = tiny_content()
    for annotation in data["annotations"][:count]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x / 96, y / 64, width / 96, height / 64]
    if count > 3:
        with pytest.raises(DataError, match=r"fraction-boxes: .*annotations\.json: \d+% of .*multiply fractions by"):
            open_tiny(tmp_path, data, policy)
    else:
        assert "warning: 33% of the boxes lie within the first pixel" in open_tiny(tmp_path, data).report.summary()


def test_data_without_annotations_get_a_warning(tmp_path):
    """docs/faults.md row 179. By hand: images alone, which are pure background; nothing can be scored on them."""
    dataset = open_tiny(tmp_path, tiny_content() | {"annotations": []})
    require_objects(dataset)
    assert "warning: there are no objects at all: the model learns the background only" in dataset.report.summary()
    warn_without_objects(dataset)
    assert "there are no objects to score: the scores are null" in dataset.report.summary()


def test_part_of_a_data_set_counts_the_objects_of_the_whole(tmp_path):
    """docs/faults.md row 179. By hand: all objects are crowds, and a part of the images is used."""
    data = tiny_content()
    for annotation in data["annotations"]:
        annotation["iscrowd"] = 1
    split = build_dataset(HashSplitConfig(dataset=write_tiny(tmp_path, data), part="train"), "error")
    with pytest.raises(DataError, match=r"nothing-to-learn: .*6 crowd"):
        require_objects(split)
    require_objects(build_dataset(HashSplitConfig(dataset=write_tiny(tmp_path), part="train"), "error"))
