"""A new field of objects, declared in this file alone: one point in each object.

Oracle: the image. A block of pixels is painted around every point, so wherever a transform moves the image, the point
must be in the middle of a block that has the color of its object.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from vertebra.data import (
    Carried,
    CenterCropConfig,
    CopyPasteConfig,
    Dataset,
    LoaderConfig,
    MixSequenceConfig,
    MixupConfig,
    MosaicConfig,
    ObjectField,
    Objects,
    RandomCropConfig,
    Record,
    ResizeConfig,
    Sample,
    ScaledCropConfig,
    Window,
    build_mix,
    build_transform,
    collate,
    declare_object_field,
    resize_annotations,
    train_loader,
)
from vertebra.structures import Classes, Instances


class PointField(ObjectField[np.ndarray]):
    """A point (x, y) in each object; it may be outside an image that shows only a part of its object."""

    def check(self, value, count: int, size: tuple[int, int] | None) -> None:
        if tuple(value.shape) != (count, 2):
            raise ValueError(f"one point per box is needed, got {count} boxes and points of {tuple(value.shape)}")

    def select(self, value: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return value[rows]

    def concatenate(self, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(values)

    def resize(self, value: np.ndarray, before: tuple[int, int], after: tuple[int, int]) -> np.ndarray:
        return value * np.array([after[1] / before[1], after[0] / before[0]], np.float32)

    def crop(self, value: np.ndarray, window: Window) -> np.ndarray:
        return value - np.array([window.left, window.top], np.float32)

    def place(self, value: np.ndarray, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
        return value + np.array([left, top], np.float32)

    def carry(self, value: np.ndarray) -> Carried:
        return Carried(points=value)

    def restore(self, value: np.ndarray, carried: Carried, size: tuple[int, int], mirrored: bool) -> np.ndarray:
        assert carried.points is not None
        return carried.points

    def to_tensor(self, value: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(value.copy())


declare_object_field("points", PointField())

SIZES = ((90, 120), (80, 150), (100, 110))  # height, width
CORNERS = ((10, 12), (60, 8), (40, 50))  # left and top of each object's box, 30 x 26
BLOCK = 10  # side of a painted block in pixels
SEQUENCE = MixSequenceConfig(mixes=(MosaicConfig(size=(170, 200)), CopyPasteConfig()))
AS_IT_IS = ResizeConfig(short_sides=(80, 90, 100), long_side=400)


class PaintedPoints(Dataset):
    """Black images with three objects; the label of object j of image i is 10 i + j."""

    task = "detection"
    masks = True

    def __init__(self) -> None:
        self.image_ids = list(range(len(SIZES)))

    @property
    def classes(self):
        return {"detection": Classes(("a",), (1,))}

    def __len__(self) -> int:
        return len(SIZES)

    def read_image(self, index: int) -> Record:
        image = np.zeros((*SIZES[index], 3), np.uint8)
        for number, (x, y) in enumerate(points_of(index).astype(int)):
            half = BLOCK // 2
            image[y - half : y + half, x - half : x + half, index] = color_of(10 * index + number)
        return Record(image, image_id=index)

    def add_annotations(self, record: Record, index: int) -> Record:
        boxes = np.array([(left, top, left + 30, top + 26) for left, top in CORNERS], np.float32)
        masks = np.zeros((len(boxes), *SIZES[index]), np.uint8)
        for mask, (left, top) in zip(masks, CORNERS, strict=True):
            mask[top : top + 26, left : left + 30] = 1
        labels = 10 * index + np.arange(len(boxes))
        return replace(record, objects=Objects(boxes, labels, boxes[:0], masks, points=points_of(index)))

    def ground_truth(self):
        raise NotImplementedError


def points_of(index: int) -> np.ndarray:
    """Return the points of an image; they are at other places in their boxes than those of any other image."""
    return np.array([(left + 9 + 3 * index, top + 12 - 2 * index) for left, top in CORNERS], np.float32)


def color_of(label: int) -> int:
    """Return the value of an object's block, in the channel with the number of its image."""
    return 250 - 60 * (label % 10)


def count_centered_points(sample: Sample) -> int:
    """Check that each point is in the middle of its object's block; return how many blocks are shown completely."""
    image, target = sample.image.numpy().astype(int), sample.target
    assert target.points.shape == (len(target), 2)
    counted = 0
    for point, label, mask in zip(target.points.tolist(), target.labels.tolist(), target.masks.numpy(), strict=True):
        rows, columns = np.nonzero(mask & (image[label // 10] > color_of(label) / 2))
        if not len(rows):
            continue
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        around = np.pad(mask, 1)[top : bottom + 2, left : right + 2]
        if around.all():  # otherwise a part of the block is cut off, or hidden by another object
            assert point == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=0.75)
            counted += 1
    return counted


TRANSFORMS = {
    "flip": ResizeConfig(short_sides=(80, 90, 100), long_side=400, flip=1),
    "resize": ResizeConfig(short_sides=(60, 133, 170), long_side=400, flip=0.5),
    "random part": ResizeConfig(short_sides=(80, 120), long_side=400, flip=0.5, crop=0.5),
    "random crop": RandomCropConfig(size=96, scale=(0.3, 0.8), ratio=(0.8, 1.25)),
    "center crop": CenterCropConfig(resize=80, size=70),
    "scaled crop": ScaledCropConfig(size=(90, 100), scales=(0.8, 2.0), boxes_from_masks=True),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_points_follow_their_pixels(name):
    """Oracle: the painted image, through every transform; if a crop drops an object, its point is dropped too."""
    dataset, transform = PaintedPoints(), build_transform(TRANSFORMS[name])
    samples = [transform(dataset.read(index), epoch, index) for index in range(len(dataset)) for epoch in range(8)]
    assert sum(count_centered_points(sample) for sample in samples) > 20
    if name not in ("flip", "resize"):
        assert sum(len(sample.target) for sample in samples) < 3 * len(samples)


def test_points_after_a_flip_and_a_resize():
    """By hand: x becomes width - x, and both coordinates are multiplied by the ratio of the sizes."""
    record, points = PaintedPoints().read(0), points_of(0)
    flipped = build_transform(TRANSFORMS["flip"])(record, 0, 0).target.points
    height, width = build_transform(TRANSFORMS["flip"])(record, 0, 0).image.shape[1:]
    expected = (points * [width / 120, height / 90] - [width, 0]) * [-1, 1]
    assert np.allclose(flipped, expected, atol=1e-3)


@pytest.mark.parametrize(
    "config", [MosaicConfig(size=(170, 200)), CopyPasteConfig(), SEQUENCE], ids=lambda config: config.name
)
@pytest.mark.parametrize("transform", [AS_IT_IS, TRANSFORMS["random part"]], ids=["whole", "parts"])
def test_points_follow_their_pixels_in_a_mix(config, transform):
    """Oracle: several painted images mixed into one; the objects of all of them have points."""
    dataset, change = PaintedPoints(), build_transform(transform)
    mix = build_mix(config, dataset)
    samples = [mix(dataset.read, change, epoch, epoch % 3) for epoch in range(24)]
    assert sum(count_centered_points(sample) for sample in samples) > 40
    assert len({label // 10 for sample in samples for label in sample.target.labels.tolist()}) == 3


def test_mixup_keeps_the_points_of_both_images():
    """By hand: both images start at the same corner, so all points are where they were, in fainter blocks."""
    dataset = PaintedPoints()
    result = build_mix(MixupConfig(alpha=50), dataset).join(
        [dataset.read(1), dataset.read(2)], np.random.default_rng(0)
    )
    assert np.array_equal(result.objects.points, np.concatenate([points_of(1), points_of(2)]))
    for label, (x, y) in zip(result.objects.labels.tolist(), result.objects.points.astype(int), strict=True):
        block, beside = result.image[y, x, label // 10], result.image[y, x - BLOCK, label // 10]
        assert block > beside + 0.3 * color_of(label)


def test_hidden_object_is_dropped_with_its_point():
    """By hand: objects of two images at the same places. Where one is pasted, the one below is hidden and dropped."""
    dataset = PaintedPoints()
    below, above = dataset.read(0), dataset.read(1)
    mix = build_mix(CopyPasteConfig(), dataset)
    pasted = set()
    for seed in range(12):
        objects = mix.join([below, above], np.random.default_rng(seed)).objects
        for label, point in zip(objects.labels.tolist(), objects.points, strict=True):
            assert np.array_equal(point, points_of(label // 10)[label % 10])
        numbers = sorted(label % 10 for label in objects.labels.tolist())
        assert numbers == [0, 1, 2]
        pasted.add(tuple(objects.labels.tolist()))
    assert len(pasted) > 3


def test_points_are_scaled_with_a_reduced_image():
    """By hand: half the image size, half the coordinates."""
    record = PaintedPoints().read(1)
    half = resize_annotations(record, (80, 150), (40, 75))
    assert np.array_equal(half.objects.points, points_of(1) / 2)


def test_points_of_a_batch_do_not_depend_on_workers():
    """Law: two workers give the points that the main process gives, in the order of the boxes; ``to`` moves them to
    another device."""

    def batches(workers: int) -> list:
        return list(
            train_loader(
                PaintedPoints(), TRANSFORMS["random part"], LoaderConfig(workers=workers),
                batch_size=2, divisor=32, seed=1, start_step=0, end_step=4,
            )
        )  # fmt: skip

    for batch, other in zip(batches(0), batches(2), strict=True):
        for target, same in zip(batch.targets, other.targets, strict=True):
            assert torch.equal(target.points, same.points) and len(target.points) == len(target.boxes)
            assert target.max_label == same.max_label
        assert {target.points.device.type for target in batch.to("meta").targets} == {"meta"}


def test_samples_are_collated_with_their_points():
    """By hand: the points of each sample, unpadded and unchanged."""
    dataset, transform = PaintedPoints(), build_transform(AS_IT_IS)
    samples = [transform(dataset.read(index), 0, index) for index in range(3)]
    batch = collate(samples, 32)
    assert [target.points.shape for target in batch.targets] == [(3, 2)] * 3
    assert all(torch.equal(a.target.points, b.points) for a, b in zip(samples, batch.targets, strict=True))


def test_wrong_number_of_points_is_refused():
    """By hand: ValueError at construction, in a data set and through the Python API."""
    boxes, labels = np.array([[0, 0, 5, 5]] * 2, np.float32), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match=r"got 2 boxes and points of \(3, 2\)"):
        Objects(boxes, labels, boxes[:0], points=np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"got 2 boxes and points of \(2, 3\)"):
        Instances(torch.from_numpy(boxes), torch.from_numpy(labels), points=torch.zeros(2, 3))


def test_objects_without_points_have_none():
    """By hand: a declared field is None if a data set does not give it."""
    boxes, labels = np.array([[0, 0, 5, 5]], np.float32), np.zeros(1, np.int64)
    assert Objects(boxes, labels, boxes[:0]).points is None
    assert Instances(torch.from_numpy(boxes), torch.from_numpy(labels)).points is None
