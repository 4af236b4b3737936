"""Keypoints of objects through every transform and mix.

Oracle: the image. Blocks of pixels are painted around the keypoints, so wherever a transform moves the image, a
keypoint must be in the middle of a block of its color. The objects are symmetric, with the left hand to the left of the
right one. They are so in a mirrored image too if left and right keypoints change places, and then the colors of the
hands are exchanged.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from vertebra.data import (
    CenterCropConfig,
    CopyPasteConfig,
    Dataset,
    Keypoints,
    LoaderConfig,
    MixupConfig,
    MosaicConfig,
    Objects,
    RandomCropConfig,
    Record,
    ResizeConfig,
    Sample,
    ScaledCropConfig,
    build_mix,
    build_transform,
    collate,
    resize_annotations,
    train_loader,
)
from vertebra.structures import Classes, Skeleton, find_flip_pairs

NAMES = ("head", "left_hand", "right_hand", "tail")
COLORS = (250, 190, 130, 70)
SKELETON = Skeleton(NAMES, flip_pairs=find_flip_pairs(NAMES))
SIZES = ((130, 170), (120, 150), (150, 140))  # height, width
CORNERS = ((6, 8), (70, 60))  # left and top of each object's box, 64 x 52
BLOCK = 10  # side of a painted block in pixels
HIDDEN_TAIL = (2, 2, 2, 1)


class PaintedKeypoints(Dataset):
    """Black images with two objects, painted in the color channel given by the image's index; tails are hidden."""

    task = "detection"
    masks = True
    skeleton = SKELETON

    def __init__(self) -> None:
        self.image_ids = list(range(len(SIZES)))

    @property
    def classes(self):
        return {"detection": Classes(("a",), (1,), skeleton=SKELETON)}

    def __len__(self) -> int:
        return len(SIZES)

    def read_image(self, index: int) -> Record:
        image = np.zeros((*SIZES[index], 3), np.uint8)
        for row in keypoints_of(index).astype(int):
            for (x, y, _), color in zip(row.tolist(), COLORS, strict=True):
                image[y - BLOCK // 2 : y + BLOCK // 2, x - BLOCK // 2 : x + BLOCK // 2, index] = color
        return Record(image, image_id=index)

    def add_annotations(self, record: Record, index: int) -> Record:
        boxes = np.array([(left, top, left + 64, top + 52) for left, top in CORNERS], np.float32)
        masks = np.zeros((len(boxes), *SIZES[index]), np.uint8)
        for mask, (left, top) in zip(masks, CORNERS, strict=True):
            mask[top : top + 52, left : left + 64] = 1
        labels = 10 * index + np.arange(len(boxes))
        keypoints = Keypoints(keypoints_of(index), SKELETON.flip_order)
        return replace(record, objects=Objects(boxes, labels, boxes[:0], masks, keypoints=keypoints))

    def ground_truth(self):
        raise NotImplementedError


def keypoints_of(index: int) -> np.ndarray:
    """Return the keypoints of an image; they are at other places in their boxes than those of any other image."""
    offsets = np.array([(32, 8), (10 + index, 26), (54 - index, 26), (32, 42 - index)])
    points = np.array(CORNERS)[:, None] + offsets
    return np.concatenate([points, np.tile(np.array(HIDDEN_TAIL)[:, None], (2, 1, 1))], axis=2).astype(np.float32)


def check_keypoints(sample: Sample) -> tuple[int, int]:
    """Check that each keypoint is in the middle of a block of its color, and that left keypoints are on the left.

    Returns how many blocks are shown completely, and how many keypoints are not in the image.
    """
    image, target = sample.image.numpy(), sample.target
    assert target.keypoints.shape == (len(target), len(NAMES), 3)
    shown, missing = 0, 0
    for keypoints, label, mask in zip(
        target.keypoints.numpy(), target.labels.tolist(), target.masks.numpy(), strict=True
    ):
        blocks = ((image[label // 10] > 30) & mask).astype(np.uint8)
        _, components = cv2.connectedComponents(blocks)
        colors = {}
        for number, (x, y, visibility) in enumerate(keypoints.tolist()):
            if visibility == 0:
                assert (x, y) == (0, 0)
                missing += 1
                continue
            column, row = min(int(x), mask.shape[1] - 1), min(int(y), mask.shape[0] - 1)
            rows, columns = np.nonzero(components == components[row, column])
            around = np.pad(mask, 1)[rows.min() : rows.max() + 3, columns.min() : columns.max() + 3]
            if not blocks[row, column] or not around.all():
                continue  # a part of the block is cut off, or hidden by another object
            middle = [(columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2]
            assert [x, y] == pytest.approx(middle, abs=0.75)
            assert visibility == HIDDEN_TAIL[number]
            colors[number] = int(image[label // 10][rows, columns].max())
            shown += 1
        swapped = [COLORS[number] for number in SKELETON.flip_order]
        assert any(all(abs(colors[number] - wanted[number]) < 12 for number in colors) for wanted in (COLORS, swapped))
        if keypoints[1, 2] and keypoints[2, 2]:
            assert keypoints[1, 0] < keypoints[2, 0]
    return shown, missing


WHOLE = ResizeConfig(short_sides=(120, 140), long_side=400, flip=0.5)
TRANSFORMS = {
    "flip": ResizeConfig(short_sides=(120, 140), long_side=400, flip=1),
    "resize": ResizeConfig(short_sides=(90, 190, 250), long_side=500, flip=0.5),
    "random part": ResizeConfig(short_sides=(100, 150), long_side=400, flip=0.5, crop=0.5),
    "random crop": RandomCropConfig(size=120, scale=(0.3, 0.8), ratio=(0.8, 1.25)),
    "center crop": CenterCropConfig(resize=120, size=100),
    "scaled crop": ScaledCropConfig(size=(120, 130), scales=(0.8, 2.0), boxes_from_masks=True),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_keypoints_follow_their_pixels(name):
    """Oracle: the painted image, through every transform; a keypoint that a crop removes becomes unlabeled."""
    dataset, transform = PaintedKeypoints(), build_transform(TRANSFORMS[name])
    samples = [transform(dataset.read(index), epoch, index) for index in range(len(dataset)) for epoch in range(8)]
    shown, missing = np.sum([check_keypoints(sample) for sample in samples], axis=0)
    assert shown > 40
    if name in ("flip", "resize"):
        assert missing == 0 and shown == 8 * 3 * 2 * 4
    else:
        assert missing > 5
    if name in ("random part", "random crop"):  # the keypoints of an object that a crop drops are dropped too
        assert sum(len(sample.target) for sample in samples) < 2 * len(samples)


@pytest.mark.parametrize("config", [MosaicConfig(size=(220, 240)), CopyPasteConfig()], ids=lambda config: config.name)
@pytest.mark.parametrize("transform", [WHOLE, TRANSFORMS["random part"]], ids=["whole", "parts"])
def test_keypoints_follow_their_pixels_in_a_mix(config, transform):
    """Oracle: several painted images mixed into one, each of which may be mirrored."""
    dataset, change = PaintedKeypoints(), build_transform(transform)
    mix = build_mix(config, dataset)
    samples = [mix(dataset.read, change, epoch, epoch % 3) for epoch in range(20)]
    assert sum(check_keypoints(sample)[0] for sample in samples) > 60
    assert len({label // 10 for sample in samples for label in sample.target.labels.tolist()}) == 3


def test_mixup_keeps_the_keypoints_of_both_images():
    """By hand: both images start at the same corner, so all keypoints are where they were."""
    dataset = PaintedKeypoints()
    objects = (
        build_mix(MixupConfig(alpha=50), dataset)
        .join([dataset.read(1), dataset.read(2)], np.random.default_rng(0))
        .objects
    )
    assert np.array_equal(objects.keypoints.values, np.concatenate([keypoints_of(1), keypoints_of(2)]))


def test_keypoint_below_a_pasted_object_is_hidden():
    """By hand: an object that covers the right half of another one hides its right hand; it stays labeled."""
    covered = np.zeros((130, 170), np.uint8)
    covered[:, 45:] = 1
    objects = PaintedKeypoints().read(0).objects.cover(covered)
    assert objects.keypoints.values[:, :, 2].tolist() == [[2, 2, 1, 1], [1, 1, 1, 1]]
    assert np.array_equal(objects.keypoints.values[..., :2], keypoints_of(0)[..., :2])
    assert objects.masks[0, :, 45:].sum() == 0 and objects.masks[0].sum() == 52 * (45 - 6)


def test_flip_swaps_left_and_right():
    """By hand: x becomes width - x, and the keypoint that was the left hand is now the right hand."""
    record = PaintedKeypoints().read(0)
    flipped = build_transform(ResizeConfig(short_sides=(130,), flip=1))(record, 0, 0).target.keypoints
    expected = keypoints_of(0)[:, [0, 2, 1, 3]] * [-1, 1, 1] + [170, 0, 0]
    assert np.allclose(flipped, expected, atol=1e-3)


def test_unlabeled_keypoints_stay_zeros():
    """Law: no transform or mix moves a keypoint that is not labeled."""
    dataset = PaintedKeypoints()
    values = keypoints_of(0)
    values[:, 1] = 0
    record = dataset.read(0)
    record = replace(record, objects=record.objects.replace(keypoints=Keypoints(values, SKELETON.flip_order)))
    flipped = build_transform(ResizeConfig(short_sides=(200,), flip=1))(record, 0, 0).target.keypoints
    assert not flipped[:, 2].any() and flipped[:, 1].all()
    placed = record.objects.place(5, 7, (300, 300)).keypoints.values
    assert not placed[:, 1].any() and np.array_equal(placed[:, 0], values[:, 0] + [5, 7, 0])


def test_keypoints_are_scaled_with_a_reduced_image():
    """By hand: half the image size, half the coordinates."""
    half = resize_annotations(PaintedKeypoints().read(1), (120, 150), (60, 75))
    assert np.array_equal(half.objects.keypoints.values, keypoints_of(1) * [0.5, 0.5, 1])


def test_keypoints_of_a_batch_do_not_depend_on_workers():
    """Law: two workers give the keypoints that the main process gives."""

    def batches(workers: int) -> list:
        return list(
            train_loader(
                PaintedKeypoints(), TRANSFORMS["random part"], LoaderConfig(workers=workers),
                batch_size=2, divisor=32, seed=1, start_step=0, end_step=3,
            )
        )  # fmt: skip

    for batch, other in zip(batches(0), batches(2), strict=True):
        for target, same in zip(batch.targets, other.targets, strict=True):
            assert torch.equal(target.keypoints, same.keypoints) and len(target.keypoints) == len(target.boxes)


def test_samples_are_collated_with_their_keypoints():
    """By hand: the keypoints of each sample, unpadded and unchanged."""
    dataset, transform = PaintedKeypoints(), build_transform(WHOLE)
    samples = [transform(dataset.read(index), 0, index) for index in range(3)]
    batch = collate(samples, 32)
    assert all(torch.equal(a.target.keypoints, b.keypoints) for a, b in zip(samples, batch.targets, strict=True))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("nose", "left_eye", "right_eye"), (0, 2, 1)),
        (("eye_right", "eye_left", "tip"), (1, 0, 2)),
        (("LeftHand", "RightHand", "left"), (1, 0, 2)),
        (("top", "bottom"), (0, 1)),
    ],
)
def test_flip_pairs_are_found_by_name(names, expected):
    """By hand: names that differ in left and right; a name without a partner stays."""
    assert Skeleton(names, flip_pairs=find_flip_pairs(names)).flip_order == expected


def test_wrong_number_of_skeletons_is_refused():
    """By hand: ValueError with both counts, also when images with and without keypoints are mixed."""
    objects = PaintedKeypoints().read(0).objects
    with pytest.raises(ValueError, match="one skeleton per box is needed, got 2 boxes and 1 skeletons"):
        objects.replace(keypoints=Keypoints(keypoints_of(0)[:1], SKELETON.flip_order))
