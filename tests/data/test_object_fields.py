"""What holds for every declared field of objects, and which fields are refused."""

from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from vertebra.data import (
    Carried,
    CenterCropConfig,
    ConstantField,
    MosaicConfig,
    ObjectField,
    Objects,
    Record,
    ResizeConfig,
    Window,
    build_mix,
    build_transform,
    declare_object_field,
)
from vertebra.data.objects import concatenate_objects
from vertebra.structures import Instances

from ..helpers.coordinate_dataset import AS_IT_IS, CoordinateDataset

NOSE, LEFT, RIGHT = range(3)


class FaceField(ObjectField[np.ndarray]):
    """Keypoints (n, 3, 3) of faces: x, y and whether it is visible, of the nose, the left and the right eye."""

    def check(self, value, count: int, size: tuple[int, int] | None) -> None:
        if tuple(value.shape) != (count, 3, 3):
            raise ValueError(f"faces must have shape ({count}, 3, 3), got {tuple(value.shape)}")

    def select(self, value: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return value[rows]

    def concatenate(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(values)

    def resize(self, value: np.ndarray, before: tuple[int, int], after: tuple[int, int]) -> np.ndarray:
        return value * np.array([after[1] / before[1], after[0] / before[0], 1], np.float32)

    def crop(self, value: np.ndarray, window: Window) -> np.ndarray:
        return hide_outside(value - np.array([window.left, window.top, 0], np.float32), window.size)

    def place(self, value: np.ndarray, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
        return value + np.array([left, top, 0], np.float32)

    def carry(self, value: np.ndarray) -> Carried:
        return Carried(points=value[..., :2].reshape(-1, 2))

    def restore(self, value: np.ndarray, carried: Carried, size: tuple[int, int], mirrored: bool) -> np.ndarray:
        assert carried.points is not None
        moved = np.concatenate([carried.points.reshape(-1, 3, 2), value[..., 2:]], axis=2)
        return hide_outside(moved[:, [NOSE, RIGHT, LEFT]] if mirrored else moved, size)

    def to_tensor(self, value: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(value.copy())


def hide_outside(faces: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the keypoints, with those outside an image of this (height, width) marked as not visible."""
    inside = ((faces[..., :2] >= 0) & (faces[..., :2] < [size[1], size[0]])).all(axis=2)
    return faces * np.stack([np.ones_like(inside), np.ones_like(inside), inside], axis=2)


declare_object_field("faces", FaceField())
declare_object_field("track", ConstantField("track"))

FACE = np.array([[[40, 20, 1], [44, 16, 1], [36, 16, 1]]], np.float32)
BOX, NOWHERE = np.array([[30, 10, 50, 30]], np.float32), np.zeros((0, 4), np.float32)


def face_record() -> Record:
    """Return an image of 60 x 80 with one face."""
    objects = Objects(BOX, np.array([0]), NOWHERE, faces=FACE, track=np.array([7]))
    return Record(np.zeros((60, 80, 3), np.uint8), objects)


@pytest.mark.parametrize(("flip", "shift"), [(0.0, 10), (1.0, -10)])
def test_flip_swaps_left_and_right_keypoints(flip, shift):
    """By hand: the face is symmetric and 10 pixels right of the middle, so a flip moves it to the left of the
    middle, and the mirrored left eye is where the right eye was."""
    offset = np.array([10, 0, 0], np.float32)
    record = face_record()
    record = replace(record, objects=record.objects.replace(faces=FACE + offset))
    faces = build_transform(ResizeConfig(short_sides=(60,), flip=flip))(record, 0, 0).target.faces
    expected = FACE.copy()
    expected[..., 0] += shift
    assert np.allclose(faces, expected, atol=1e-3)


def test_crop_hides_keypoints_outside_of_it():
    """By hand: the middle 20 x 20 of 60 x 80 begins at (30, 20), so only the nose is visible, at the upper border."""
    faces = build_transform(CenterCropConfig(resize=60, size=20))(face_record(), 0, 0).target.faces
    assert np.allclose(faces, [[[10, 0, 1], [14, -4, 0], [6, -4, 0]]], atol=1e-3)


def test_constant_field_is_not_changed_by_transforms():
    """By hand: a track id, declared in one line."""
    target = build_transform(ResizeConfig(short_sides=(30,), flip=1))(face_record(), 0, 0).target
    assert target.track.tolist() == [7] and target.track.dtype == torch.int64


def test_labels_of_any_integer_type_become_int64():
    """By hand: numpy's default integer has 32 bits on some systems."""
    record = face_record()
    objects = record.objects.replace_unchecked(labels=np.array([3], np.int32))
    labels = build_transform(AS_IT_IS)(replace(record, objects=objects), 0, 0).target.labels
    assert labels.dtype == torch.int64 and labels.tolist() == [3]


def test_target_shares_no_memory_with_the_data_set():
    """Law: changing a target in place does not change the annotations of the data set."""
    record = face_record()
    target = build_transform(ResizeConfig(short_sides=(60,)))(record, 0, 0).target
    for value in target.fields.values():
        value.zero_()
    assert record.objects.track.tolist() == [7] and np.array_equal(record.objects.boxes, BOX)
    assert np.array_equal(record.objects.faces, FACE)


def test_undeclared_field_is_refused_with_the_nearest():
    """By hand: TypeError through the Python API and in a data set."""
    boxes, labels = torch.from_numpy(BOX), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"Instances has no field 'mask', .*declared first; did you mean 'masks'"):
        Instances(boxes, labels, mask=torch.zeros(1, 4, 4) > 0)
    with pytest.raises(TypeError, match=r"Objects has no field 'trakc', .* did you mean 'track'"):
        Objects(BOX, np.array([0]), NOWHERE, trakc=np.array([1]))
    with pytest.raises(AttributeError, match="Instances has no field 'box'; did you mean 'boxes'"):
        _ = Instances(boxes, labels).box


@pytest.mark.parametrize("name", ["track", "boxes", "replace", "to", "_private", "two words"])
def test_taken_or_invalid_field_name_cannot_be_declared(name):
    """By hand: ValueError, since a second declaration would silently change what happens to the values of the first."""
    with pytest.raises(ValueError, match="choose another name"):
        declare_object_field(name, ConstantField("value"))


def test_objects_with_and_without_a_field_cannot_be_concatenated():
    """By hand: ValueError with the counts; an image without objects need not have the field."""
    with_track, without = face_record().objects, Objects(BOX, np.array([0]), NOWHERE)
    with pytest.raises(ValueError, match="one track per box is needed, got 2 boxes and 1 tracks"):
        concatenate_objects([with_track.replace(faces=None), without])
    empty = Objects(NOWHERE, np.zeros(0, np.int64), NOWHERE)
    assert concatenate_objects([with_track, empty]).track.tolist() == [7]


@pytest.mark.parametrize("form", ["bitmaps", "polygons"])
def test_objects_are_indexed_by_integers_or_bools(form):
    """By hand: the third and the first object, or the first and the third, with their masks; regions to ignore are
    all kept."""
    objects = CoordinateDataset(form).read(1).objects
    masks = objects.masks if form == "bitmaps" else objects.polygon_masks
    for rows, expected in ((np.array([2, 0]), [2, 0]), (np.array([True, False, True]), [0, 2])):
        chosen = objects[rows]
        assert chosen.labels.tolist() == [10 + row for row in expected] and len(chosen.ignored) == 1
        left = chosen.masks if form == "bitmaps" else chosen.polygon_masks
        assert len(left) == 2
        for mask, row in zip(left, expected, strict=True):
            assert np.array_equal(mask, masks[row]) if form == "bitmaps" else mask is masks[row]


def test_fields_of_a_target_cannot_be_assigned():
    """By hand: FrozenInstanceError, since several heads may read the same batch; ``replace`` gives a changed copy."""
    target = build_transform(AS_IT_IS)(face_record(), 0, 0).target
    with pytest.raises(FrozenInstanceError, match="labels"):
        target.labels = torch.zeros(1)
    with pytest.raises(FrozenInstanceError, match="track"):
        face_record().objects.track = np.zeros(1)
    changed = target.replace(labels=torch.tensor([5]))
    assert changed.labels.tolist() == [5] and changed.max_label == 5 and target.max_label == 0
    assert changed.replace(track=None).track is None and torch.equal(changed.faces, target.faces)


def test_mosaic_keeps_every_built_in_field():
    """Law: a mosaic has the fields of the images that it is made of."""
    for form in ("bitmaps", "polygons", None):
        dataset = CoordinateDataset(form)
        record = build_mix(MosaicConfig(size=(90, 130)), dataset).join(
            [dataset.read(index) for index in range(4)], np.random.default_rng(0)
        )
        assert record.objects.fields.keys() == dataset.read(0).objects.fields.keys()
