"""Generated outlines: each class is an outline, and an image depends only on the config and its index."""

import numpy as np
import pytest

from vertebra.data import OutlinesConfig, build_dataset
from vertebra.data.shapes import draw_outline_image, outlines


def config(**changes) -> OutlinesConfig:
    return OutlinesConfig(**{"split": "train", "num_classes": 7, "count": 20, "size": 32, **changes})


def test_image_depends_on_seed_split_class_and_index_only():
    """Law: images are equal if all of these are equal, whatever was read before, and differ if one of them differs."""
    few, many = build_dataset(config(count=3)), build_dataset(config())
    for index in (2, 0, 1):
        np.testing.assert_array_equal(many.read(index).image, few.read(index).image)
    changes = ({}, {"seed": 1}, {"split": "val"}, {"classes_from": 1})
    others = [draw_outline_image(config(**change), 0).tobytes() for change in changes]
    assert len({*others, draw_outline_image(config(), 7).tobytes()}) == 5


def test_labels_are_those_of_the_records():
    """Law: ground truth, pairs of index and label, and records agree; a name says which outline it is."""
    dataset, names = build_dataset(config(classes_from=5)), tuple(f"outline {number}" for number in range(5, 12))
    read = [dataset.read(index) for index in range(len(dataset))]
    assert dataset.ground_truth() == {record.image_id: record.label for record in read}
    assert dataset.image_labels().tolist() == [[record.image_id, record.label] for record in read]
    assert dataset.class_names == config(classes_from=5).classes() == names
    assert {record.image.shape for record in read} == {(32, 32, 3)}
    assert dataset.report.as_json()["totals"] == {"images": {"read": 20, "used": 20, "skipped": 0}}


@pytest.mark.parametrize("first", [0, 3])
def test_outline_of_a_class_does_not_depend_on_its_label_or_split(first, monkeypatch):
    """Law: outline 3 has the same ring under any label and in either split; the ring that covers it is another."""
    painted = []
    monkeypatch.setattr(outlines, "_paint", lambda image, ring, *_: painted.append(ring))
    for split in ("train", "val"):
        draw_outline_image(config(split=split, classes_from=first), 3 - first)
    np.testing.assert_array_equal(painted[0], painted[2])
    radii = np.hypot(*painted[0].T)
    assert (np.hypot(*painted[1].T) != radii).any() and 0 < radii.min() < radii.max()
    painted.clear()
    draw_outline_image(config(), 3)
    draw_outline_image(config(), 4)
    assert (painted[0] != painted[2]).any()
