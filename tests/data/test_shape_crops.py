"""Crops of generated shapes: each depends on its index alone and shows the object of its label."""

from collections import Counter

import numpy as np
import pytest

from vertebra.data import ShapeCropsConfig, build_dataset
from vertebra.data.shapes import CLASS_NAMES, Scene, SceneObject, crops, draw_crop


def config(**changes) -> ShapeCropsConfig:
    return ShapeCropsConfig(**{"split": "train", "count": 40, "size": 32, **changes})


def test_crop_depends_on_seed_split_and_index_only():
    """Law: equal in all three, crops are equal whatever was read before; different in one, they differ."""
    few, many = build_dataset(config(count=3)), build_dataset(config())
    first = [many.read(index) for index in (2, 0, 1)]
    for record, index in zip(first, (2, 0, 1), strict=True):
        np.testing.assert_array_equal(record.image, few.read(index).image)
        assert record.label == few.read(index).label
    others = [draw_crop(config(**changes), 0)[0].tobytes() for changes in ({}, {"seed": 1}, {"split": "val"})]
    assert len({*others, draw_crop(config(), 1)[0].tobytes()}) == 4


def test_ground_truth_has_the_labels_that_are_read():
    """Law: the label of every image id is the one of its record."""
    dataset = build_dataset(config())
    read = [dataset.read(index) for index in range(len(dataset))]
    assert dataset.ground_truth() == {record.image_id: record.label for record in read}
    assert list(dataset.image_ids) == list(dataset.ground_truth())
    assert {record.image.shape for record in read} == {(32, 32, 3)}
    assert dataset.class_names == CLASS_NAMES == config().classes()
    assert dataset.report.as_json()["totals"] == {"images": {"read": 40, "used": 40, "skipped": 0}}


def test_classes_are_equally_frequent():
    """Law (5 sigma of a binomial): labels are those of objects, whose classes are equally likely."""
    counts = Counter(draw_crop(config(), index)[1] for index in range(240))
    assert set(counts) == set(range(len(CLASS_NAMES)))
    assert all(abs(count - 30) < 5 * (240 * 1 / 8 * 7 / 8) ** 0.5 for count in counts.values())


@pytest.mark.parametrize("size", [32, 64])
def test_labeled_object_fills_the_crop(size, monkeypatch):
    """By hand: a white rectangle of 40 x 20 pixels in a black scene with a crowd is in the crop, and complete.

    The crop's side is 40..68 pixels of the scene and its middle within a tenth of that, so the rectangle's long side
    takes 1/1.7 to all of the crop and its short side half as much; a side may leave the crop by the tenth it moved.
    """
    rectangle, crowd = np.zeros((100, 120), bool), np.zeros((100, 120), bool)
    rectangle[50:70, 50:90], crowd[:9, :9] = True, True
    objects = (SceneObject(6, crowd, 81, crowd=True), SceneObject(3, rectangle, 800))
    scene = Scene(np.repeat(rectangle[..., None], 3, axis=2) * np.uint8(255), objects)
    empty = Scene(scene.image, objects[:1])
    scenes = iter([empty, scene] * 40)

    def draw_scene(scene_config, seed, split, number):
        assert (seed, split) == (7, "val")
        return next(scenes)

    monkeypatch.setattr(crops, "draw_scene", draw_scene)
    orientations = set()
    for index in range(40):
        crop, label = draw_crop(config(size=size, seed=7, split="val"), index)
        assert label == 3
        rows, columns = np.nonzero(crop[..., 0] > 127)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        orientations.add(bool(height > width))
        assert 0.9 / 1.7 * size - 1 <= max(height, width) <= size
        assert max(height, width) * 0.5 - 2 <= min(height, width) <= max(height, width) * 0.56 + 2
        middle = np.array([np.mean(rows), np.mean(columns)]) + 0.5
        assert np.abs(middle - size / 2).max() <= 0.1 * size + 0.5
    assert orientations == {True, False}
