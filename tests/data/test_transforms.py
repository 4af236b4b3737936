"""Resizing, flipping and cropping an image with its boxes."""

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision.transforms import RandomResizedCrop

from vertebra.data import (
    CenterCropConfig,
    Objects,
    RandomCropConfig,
    Record,
    ResizeConfig,
    Sample,
    build_transform,
)
from vertebra.structures import UsageError


def record(height: int = 60, width: int = 100, objects: int = 5) -> Record:
    """Return noise with a few objects, one of them as large as the image, and a crowd."""
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 0.5, (objects, 2)) * [width, height]
    boxes = np.concatenate([corners, corners + generator.uniform(0.1, 0.5, (objects, 2)) * [width, height]], axis=1)
    if objects:
        boxes[0] = [0, 0, width, height]
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    crowd = np.array([[10, 10, 30, 20]], np.float32)
    truth = Objects(boxes.astype(np.float32), np.arange(objects), crowd)
    return Record(image, truth, image_id=7, file="photo.jpg")


def pixels(sample: Sample) -> np.ndarray:
    return sample.image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        ((60, 100), 30, 400, (30, 50)),
        ((60, 100), 90, 120, (72, 120)),
        ((100, 60), 45, 400, (75, 45)),
        ((61, 97), 61, 97, (61, 97)),
    ],
)
def test_resize_limits_both_sides_and_scales_boxes(size, short, long, expected):
    """By hand: scale = min(short / min, long / max), sides rounded to nearest. Oracle: cv2 for the pixels."""
    source = record(*size)
    sample = build_transform(ResizeConfig(short_sides=(short,), long_side=long))(source, 0, 0)
    assert tuple(sample.image.shape) == (3, *expected)
    assert np.array_equal(pixels(sample), cv2.resize(source.image, expected[::-1], interpolation=cv2.INTER_LINEAR))
    ratio = torch.tensor([expected[1] / size[1], expected[0] / size[0]] * 2)
    for resized, boxes in (
        (sample.target.boxes, source.objects.boxes),
        (sample.target.ignored, source.objects.ignored),
    ):
        torch.testing.assert_close(resized, torch.from_numpy(boxes) * ratio, atol=1e-3, rtol=0)
    assert sample.target.labels.tolist() == [0, 1, 2, 3, 4]
    assert (sample.image_id, sample.original_size, sample.file) == (7, size, "photo.jpg")


def test_flipping_twice_changes_nothing():
    """Law: pixels and boxes (1e-3 px) are as before."""
    source = record()
    flip = build_transform(ResizeConfig(short_sides=(60,), long_side=100, flip=1.0))
    once = flip(source, 0, 0)
    assert not np.array_equal(pixels(once), source.image)
    truth = Objects(once.target.boxes.numpy(), once.target.labels.numpy(), source.objects.ignored)
    twice = flip(Record(pixels(once), truth), 0, 0)
    assert np.array_equal(pixels(twice), source.image)
    torch.testing.assert_close(twice.target.boxes, torch.from_numpy(source.objects.boxes), atol=1e-3, rtol=0)


def test_flipped_boxes():
    """By hand: x1, x2 become width - x2, width - x1."""
    source = record()
    flip = build_transform(ResizeConfig(short_sides=(60,), long_side=100, flip=1.0))
    expected = source.objects.boxes.copy()
    expected[:, [0, 2]] = 100 - source.objects.boxes[:, [2, 0]]
    torch.testing.assert_close(flip(source, 0, 0).target.boxes, torch.from_numpy(expected), atol=1e-3, rtol=0)


def test_image_without_objects_has_an_empty_target():
    """docs/faults.md row 38. By hand: tensors of the right shape without rows; the crowd is kept."""
    target = build_transform(ResizeConfig())(record(objects=0), 0, 0).target
    assert target.boxes.shape == (0, 4) and target.labels.shape == (0,) and len(target.ignored) == 1


TRANSFORMS = {
    "resize": ResizeConfig(short_sides=tuple(range(32, 96)), long_side=400, flip=0.5),
    "random_part": ResizeConfig(short_sides=(48,), crop=0.5, color_jitter={"hue": 0.1}),
    "random_crop": RandomCropConfig(size=40, color_jitter=0.4),
    "center_crop": CenterCropConfig(resize=40, size=32),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_image_with_a_class_label_or_without_target_is_transformed(name):
    """By hand: the target is the label, or None."""
    transform = build_transform(TRANSFORMS[name])
    image = record().image
    label = transform(Record(image, label=3), 0, 0).target
    assert label.shape == () and label.dtype == torch.int64 and label == 3
    assert transform(Record(image), 0, 0).target is None


@pytest.mark.parametrize("name", ["resize", "random_part", "random_crop"])
def test_sample_depends_on_seed_epoch_and_index_only(name):
    """Law: the same three give the same sample whatever was read before, and changing one gives another sample."""

    def samples(seed: int, epoch: int) -> list[bytes]:
        transform = build_transform(TRANSFORMS[name], seed)
        transform(record(), 99, 99)
        return [transform(record(), epoch, index).image.numpy().tobytes() for index in range(12)]

    assert samples(0, 0) == samples(0, 0)
    assert len(set(samples(0, 0))) > 6
    assert samples(0, 0) != samples(0, 1)
    assert samples(0, 0) != samples(1, 0)


def test_short_sides_and_flips_are_drawn_equally_often():
    """Law (5 sigma): of 400 samples half have either of two short sides, and half are flipped."""
    transform = build_transform(ResizeConfig(short_sides=(30, 60), long_side=400, flip=0.5))
    samples = [transform(record(), 0, index) for index in range(400)]
    assert abs(sum(sample.image.shape[1] == 30 for sample in samples) - 200) < 50
    assert abs(sum(bool(sample.target.ignored[0, 0] > sample.image.shape[2] / 2) for sample in samples) - 200) < 50


def gradient(height: int, width: int) -> np.ndarray:
    """Return an image whose red is x and whose green is y, so that a pixel shows where it was."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)


def test_random_crops_are_distributed_as_torchvisions():
    """Oracle: torchvision's RandomResizedCrop: the same distribution of area and aspect ratio (means of 1,000 within 5
    %).

    The pixels of a crop show where it was: red is x and green is y.
    """
    height, width = 160, 240
    transform = build_transform(RandomCropConfig(size=32, scale=(0.2, 0.8), flip=0.0))
    ours, theirs = [], []
    torch.manual_seed(0)
    for index in range(1000):
        crop = pixels(transform(Record(gradient(height, width), label=0), 0, index)).astype(float)
        # The centers of the outermost pixels are half a cell inside the crop.
        sides = [(crop[..., axis].max() - crop[..., axis].min()) * 32 / 31 for axis in (1, 0)]
        ours.append((sides[0] * sides[1] / (height * width), np.log(sides[1] / sides[0])))
        _, _, rows, columns = RandomResizedCrop.get_params(torch.empty(3, height, width), [0.2, 0.8], [3 / 4, 4 / 3])
        theirs.append((rows * columns / (height * width), np.log(columns / rows)))
    (ours_area, ours_ratio), (area, ratio) = np.mean(ours, axis=0), np.mean(theirs, axis=0)
    assert ours_area == pytest.approx(area, rel=0.05)
    assert abs(ours_ratio - ratio) < 0.05
    assert np.std(ours, axis=0) == pytest.approx(np.std(theirs, axis=0), rel=0.1)


def test_relative_crop_is_uniform_in_size_and_position():
    """Oracle: detectron2's definition of relative_range: the fraction of each side is uniform in 0.4..1 and
    independent, and every position is equally likely (5 sigma). A gradient shows what was cropped; boxes are moved
    and clipped with it."""
    height, width, count = 100, 200, 300
    transform = build_transform(ResizeConfig(short_sides=(400,), long_side=2000, crop=0.4))
    box = np.array([[0, 0, width, height]], np.float32)
    truth = Objects(box, np.array([0]), box)
    fractions, positions = [], []
    for index in range(count):
        sample = transform(Record(gradient(height, width), truth), 0, index)
        spans = [(int(sample.image[axis].min()), int(sample.image[axis].max()) + 1) for axis in (0, 1)]
        sides = (width, height)
        fractions.append([(end - start) / side for (start, end), side in zip(spans, sides, strict=True)])
        positions.append([(start + end) / 2 / side for (start, end), side in zip(spans, sides, strict=True)])
        assert sample.target.boxes.tolist() == [[0, 0, sample.image.shape[2], sample.image.shape[1]]]
        assert torch.equal(sample.target.ignored, sample.target.boxes)
    assert np.min(fractions) == pytest.approx(0.4, abs=0.02) and np.max(fractions) == pytest.approx(1, abs=0.02)
    assert np.mean(fractions, axis=0) == pytest.approx(0.7, abs=5 * 0.6 / (12 * count) ** 0.5)
    assert abs(np.corrcoef(np.transpose(fractions))[0, 1]) < 5 / count**0.5
    assert np.mean(positions, axis=0) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_follow_their_pixels(flip):
    """Oracle: the pixels: a white rectangle is located in the crop by its color."""
    image = np.zeros((80, 120, 3), np.uint8)
    image[20:50, 30:80] = 255
    truth = Objects(np.array([[30, 20, 80, 50]], np.float32), np.array([4]), np.zeros((0, 4), np.float32))
    transform = build_transform(RandomCropConfig(size=96, flip=flip))
    kept = 0
    for index in range(40):
        sample = transform(Record(image, truth), 0, index)
        rows, columns = np.nonzero(pixels(sample)[..., 0] > 127)
        if len(rows) == 0:
            assert len(sample.target) == 0
            continue
        kept += 1
        visible = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert sample.target.boxes[0].tolist() == pytest.approx(visible, abs=1.0)
        assert sample.target.labels.tolist() == [4]
    assert kept > 20


def test_objects_and_crowds_outside_a_crop_are_dropped():
    """By hand: two objects and two crowds, one of each in the middle."""
    image = np.zeros((40, 80, 3), np.uint8)
    boxes = np.array([[0, 0, 10, 40], [15, 0, 40, 20]], np.float32)
    ignored = np.array([[70, 0, 80, 10], [50, 0, 70, 10]], np.float32)
    transform = build_transform(CenterCropConfig(resize=40, size=40))
    target = transform(Record(image, Objects(boxes, np.array([0, 1]), ignored)), 0, 0).target
    assert target.boxes.tolist() == [[0, 0, 20, 20]] and target.labels.tolist() == [1]
    assert target.ignored.tolist() == [[30, 0, 40, 10]]


@pytest.mark.parametrize(("size", "top", "left"), [((40, 80), 0, 20), ((80, 40), 20, 0), ((40, 41), 0, 0)])
def test_center_crop_is_the_middle_of_the_image(size, top, left):
    """By hand: a short side that has the target length is not resized; (side - crop) // 2 pixels are cut off left
    and top."""
    image = record(*size).image
    sample = build_transform(CenterCropConfig(resize=40, size=40))(Record(image, label=1), 0, 0)
    assert np.array_equal(pixels(sample), image[top : top + 40, left : left + 40])


def test_shrinking_a_crop_averages_pixels():
    """By hand: at a quarter of the size each pixel is the mean of 4 x 4 pixels (bilinear sampling would use 2 x 2)."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    means = noise.reshape(32, 4, 32, 4, 3).mean(axis=(1, 3))
    everything = RandomCropConfig(size=32, scale=(1, 1), ratio=(1, 1), flip=0)
    for config in (CenterCropConfig(resize=32, size=32), everything):
        resized = pixels(build_transform(config)(Record(noise, label=0), 0, 0))
        assert np.abs(resized - means).max() <= 0.5 + 1e-6


def test_flip_does_not_change_the_drawn_crop():
    """Law: the flipped crop is the mirror image of the crop without a flip."""
    plain, flipped = (build_transform(RandomCropConfig(size=32, flip=flip)) for flip in (0.0, 1.0))
    source = Record(record().image, label=0)
    for index in range(3):
        assert torch.equal(flipped(source, 0, index).image, plain(source, 0, index).image.flip(2))


def test_color_jitter_is_off_by_default_and_bounded():
    """Law: without jitter the color of an image of one color is kept; with jitter its brightness stays in the stated
    bounds."""
    image = np.full((40, 40, 3), 100, np.uint8)
    plain = build_transform(RandomCropConfig(size=32))
    jittered = build_transform(RandomCropConfig(size=32, color_jitter=0.4))
    assert all((plain(Record(image, label=0), 0, index).image == 100).all() for index in range(5))
    values = [jittered(Record(image, label=0), 0, index).image.float().mean().item() for index in range(60)]
    assert 59 <= min(values) < 80 and 120 < max(values) <= 141


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CenterCropConfig(resize=200, size=224),
            "a crop of 224 does not fit into a short side of 200: raise resize",
        ),
        (lambda: RandomCropConfig(scale=(0.5, 0.1)), "scale must be"),
        (lambda: RandomCropConfig(scale=(0, 1)), "greater than 0"),
        (lambda: RandomCropConfig(ratio=(2, 1)), "ratio must be"),
    ],
)
def test_invalid_transform_config_is_refused(make, message):
    """By hand: ValidationError that says what was expected and what came."""
    with pytest.raises(ValidationError, match=message):
        make()


def test_unknown_transform_suggests_the_nearest():
    """By hand: UsageError, exit code 2."""
    with pytest.raises(UsageError, match="did you mean 'center_crop'"):
        build_transform(CenterCropConfig.model_construct(name="center_crops"))
