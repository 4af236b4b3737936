"""Resizing and flipping: laws, and an independent slow computation of the same."""

import cv2
import numpy as np
import pytest
import torch

from vertebra.data import Record, Transform, TransformConfig


def record(height: int = 60, width: int = 100, objects: int = 5) -> Record:
    """Noise with a few objects, one of them at the very edge, and a crowd."""
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 0.5, (objects, 2)) * [width, height]
    boxes = np.concatenate([corners, corners + generator.uniform(0.1, 0.5, (objects, 2)) * [width, height]], axis=1)
    if objects:
        boxes[0] = [0, 0, width, height]
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    crowd = np.array([[10, 10, 30, 20]], np.float32)
    return Record(image, boxes.astype(np.float32), np.arange(objects), crowd, 7, "photo.jpg")


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        ((60, 100), 30, 400, (30, 50)),
        ((60, 100), 90, 120, (72, 120)),
        ((100, 60), 45, 400, (75, 45)),
        ((61, 97), 61, 97, (61, 97)),
    ],
)
def test_both_bounds_hold_and_boxes_follow(size, short, long, expected):
    """By hand: scale = min(short / min, long / max), sides rounded to nearest; pixels by cv2, boxes by the ratio."""
    source = record(*size)
    sample = Transform(TransformConfig(short_sides=(short,), long_side=long), seed=0)(source, 0, 0)
    assert tuple(sample.image.shape) == (3, *expected)
    pixels = cv2.resize(source.image, expected[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), pixels)
    ratio = torch.tensor([expected[1] / size[1], expected[0] / size[0]] * 2)
    for found, given in ((sample.target.boxes, source.boxes), (sample.target.ignored, source.ignored)):
        torch.testing.assert_close(found, torch.from_numpy(given) * ratio, atol=1e-3, rtol=0)
    assert sample.target.labels.tolist() == [0, 1, 2, 3, 4]
    assert (sample.image_id, sample.original_size, sample.file) == (7, size, "photo.jpg")


def test_flipping_twice_changes_nothing():
    """A law, on pixels and boxes (1e-3 px)."""
    source = record()
    flip = Transform(TransformConfig(short_sides=(60,), long_side=100, flip=1.0), seed=0)
    once = flip(source, 0, 0)
    assert not np.array_equal(once.image.permute(1, 2, 0).numpy(), source.image)
    flipped = Record(
        once.image.permute(1, 2, 0).numpy(), once.target.boxes.numpy(), once.target.labels.numpy(), source.ignored
    )
    twice = flip(flipped, 0, 0)
    assert np.array_equal(twice.image.permute(1, 2, 0).numpy(), source.image)
    torch.testing.assert_close(twice.target.boxes, torch.from_numpy(source.boxes), atol=1e-3, rtol=0)


def test_flipped_boxes_by_hand():
    """x1, x2 become width - x2, width - x1."""
    source = record()
    boxes = Transform(TransformConfig(short_sides=(60,), long_side=100, flip=1.0), seed=0)(source, 0, 0).target.boxes
    expected = source.boxes.copy()
    expected[:, [0, 2]] = 100 - source.boxes[:, [2, 0]]
    torch.testing.assert_close(boxes, torch.from_numpy(expected), atol=1e-3, rtol=0)


def test_an_image_without_objects():
    """FAULTS 38: empty targets of the right shape."""
    target = Transform(TransformConfig(), seed=0)(record(objects=0), 0, 0).target
    assert target.boxes.shape == (0, 4) and target.labels.shape == (0,) and len(target.ignored) == 1


def test_what_happens_is_a_function_of_seed_epoch_and_index():
    """A law: the same three give the same sample whatever came before; each of them matters."""
    config = TransformConfig(short_sides=tuple(range(32, 96)), long_side=400, flip=0.5)

    def shapes(seed: int, epoch: int) -> list[tuple[int, ...]]:
        transform = Transform(config, seed)
        transform(record(), 99, 99)
        return [tuple(transform(record(), epoch, index).image.shape) for index in range(12)]

    assert shapes(0, 0) == shapes(0, 0)
    assert len(set(shapes(0, 0))) > 6
    assert shapes(0, 0) != shapes(0, 1)
    assert shapes(0, 0) != shapes(1, 0)


def test_every_short_side_is_drawn_equally_often():
    """A law (5 sigma), and so is each flip."""
    transform = Transform(TransformConfig(short_sides=(30, 60), long_side=400, flip=0.5), seed=0)
    samples = [transform(record(), 0, index) for index in range(400)]
    assert abs(sum(sample.image.shape[1] == 30 for sample in samples) - 200) < 50
    assert abs(sum(bool(sample.target.ignored[0, 0] > sample.image.shape[2] / 2) for sample in samples) - 200) < 50
