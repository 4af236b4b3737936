"""Mosaics. The pixels of the test images say where they come from, so the expected masks, boxes and semantic maps
can be read off the mixed image."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vertebra.data import MosaicConfig, Sample
from vertebra.ops import rasterize_polygon_masks
from vertebra.structures import IGNORE, Instances

from ..helpers.coordinate_dataset import (
    AS_IT_IS,
    FILL,
    HEIGHT,
    WIDTHS,
    CoordinateDataset,
    boxes_of,
    ignored_of,
    masks_of,
    mix_sample,
    pixels_of,
    semantic_of,
)

MOSAIC = MosaicConfig(size=(90, 130), middle=(0.3, 0.7))


def drawn_masks(target: Instances, size: tuple[int, int]) -> np.ndarray:
    """Return the masks of a target as bitmaps, whether they are bitmaps or polygons."""
    if target.masks is not None:
        return target.masks.numpy()
    count, region = len(target), torch.tensor([[0.0, 0.0, size[1], size[0]]])
    return rasterize_polygon_masks(target.polygon_masks, torch.arange(count), region.expand(count, 4), size).numpy()


@dataclass
class Quarter:
    """One of the four images as a mosaic shows it."""

    image: int
    pixels: np.ndarray  # where it is shown, h w
    left: int  # what was added to x
    top: int

    def visible(self, masks: np.ndarray) -> np.ndarray:
        """Return masks, or a semantic map, of the image where the mosaic shows them."""
        rows, columns = np.nonzero(self.pixels)
        shown = np.zeros((*masks.shape[:-2], *self.pixels.shape), masks.dtype)
        shown[..., rows, columns] = masks[..., rows - self.top, columns - self.left]
        return shown

    def visible_box(self, box: np.ndarray) -> np.ndarray:
        """Return a box of the image, moved and clipped to the quarter."""
        left, top, right, bottom = boxes_of(self.pixels[None])[0]
        return (box + [self.left, self.top] * 2).clip([left, top] * 2, [right, bottom] * 2)


def quarters_of(sample: Sample) -> list[Quarter]:
    """Return the images that a mosaic shows: pixels of one image that were moved by the same offset."""
    pixels = pixels_of(sample)
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    keys = np.stack([pixels[..., 0], x - pixels[..., 2], y - pixels[..., 1]], axis=2)
    shown = ~(pixels == FILL).all(axis=2)
    return [
        Quarter(int(image), shown & (keys == (image, left, top)).all(axis=2), int(left), int(top))
        for image, left, top in np.unique(keys[shown], axis=0)
    ]


@pytest.mark.parametrize("index", range(5))
def test_mosaic_is_four_rectangles_around_a_point(index):
    """Law: every pixel belongs to one of four images, each at one offset, or has the mean color; an image fills as
    much of its quarter as it can, and the point where the quarters meet is in its range."""
    for epoch in range(6):
        sample = mix_sample(MOSAIC, epoch=epoch, index=index)
        quarters = quarters_of(sample)
        assert sample.image.shape == (3, 90, 130) and sample.image_id == index and len(quarters) == 4
        corners = [boxes_of(quarter.pixels[None])[0] for quarter in quarters]
        assert all(
            quarter.pixels.sum() == (right - left) * (bottom - top)
            for quarter, (left, top, right, bottom) in zip(quarters, corners, strict=True)
        )
        first = min(range(4), key=lambda number: corners[number][0] + corners[number][1])
        assert index in [quarter.image for quarter in quarters] and quarters[first].image == index
        (middle_x,) = {x for x in range(39, 92) if sum(x in (box[0], box[2]) for box in corners) == 4}
        (middle_y,) = {y for y in range(27, 64) if sum(y in (box[1], box[3]) for box in corners) == 4}
        for quarter, (left, top, right, bottom) in zip(quarters, corners, strict=True):
            room = middle_x if right == middle_x else 130 - middle_x, middle_y if bottom == middle_y else 90 - middle_y
            assert (right - left, bottom - top) == (min(room[0], WIDTHS[quarter.image]), min(room[1], HEIGHT))


def test_part_of_an_image_in_a_mosaic_is_uniform():
    """Law (5 sigma): if a quarter shows only a part of an image, every position of the part is equally likely."""
    positions = []
    for epoch in range(60):
        for quarter in quarters_of(mix_sample(MOSAIC, epoch=epoch)):
            left, top, right, bottom = boxes_of(quarter.pixels[None])[0]
            for start, length, side in (
                (left - quarter.left, right - left, WIDTHS[quarter.image]),
                (top - quarter.top, bottom - top, HEIGHT),
            ):
                if side - length > 5:
                    positions.append(start / (side - length))
    assert len(positions) > 100 and {0, 1} <= set(positions)
    assert np.mean(positions) == pytest.approx(0.5, abs=5 * (12 * len(positions)) ** -0.5)
    assert np.std(positions) == pytest.approx(12**-0.5, abs=0.06)


def test_every_image_of_a_mosaic_is_transformed_independently():
    """Law: with random flips some of the four images are flipped and others are not; in each quarter about half of
    them are (5 sigma)."""
    flips = []
    for epoch in range(60):
        sample = mix_sample(MOSAIC, epoch=epoch, transform=AS_IT_IS.replace(flip=0.5))
        blue, shown = pixels_of(sample)[..., 2], (pixels_of(sample) != FILL).any(axis=2)
        steps = np.where(shown[:, 1:] & shown[:, :-1], np.diff(blue, axis=1), 0)
        flips.append([steps[rows, columns].sum() < 0 for rows in (10, 80) for columns in (slice(38), slice(92, None))])
    assert abs(np.sum(flips, axis=0) - 30).max() < 20
    assert len(np.unique(flips, axis=0)) > 12  # of 16


@pytest.mark.parametrize("form", ["bitmaps", "polygons"])
def test_masks_of_a_mosaic_follow_their_pixels(form):
    """Law: a mosaic has exactly the masks whose pixels its quarters show, with boxes around the visible part.
    Regions to ignore are moved and clipped with their image."""
    dropped = 0
    for epoch in range(12):
        sample = mix_sample(MOSAIC, CoordinateDataset(form), epoch, epoch % 5)
        expected, ignored = [], []
        for quarter in quarters_of(sample):
            for number, mask in enumerate(quarter.visible(masks_of(quarter.image))):
                if mask.any():
                    expected.append((10 * quarter.image + number, mask.tobytes(), tuple(boxes_of(mask[None])[0])))
                dropped += not mask.any()
            boxes = [quarter.visible_box(box) for box in ignored_of(quarter.image)]
            ignored += [tuple(box) for box in boxes if (box[2:] > box[:2]).all()]
        target = sample.target
        masks = drawn_masks(target, (90, 130)).astype(np.uint8)
        boxes = [tuple(box) for box in target.boxes.tolist()]
        objects = [
            (label, mask.tobytes(), box) for label, mask, box in zip(target.labels.tolist(), masks, boxes, strict=True)
        ]
        assert sorted(objects) == sorted(expected)
        assert np.allclose(sorted(target.ignored.tolist()), sorted(ignored), atol=1e-4)
    assert dropped > 0


def test_boxes_without_masks_are_clipped_to_their_quarter():
    """Law: without masks, a box is moved with its image and clipped to its quarter."""
    for epoch in range(10):
        sample = mix_sample(MOSAIC, CoordinateDataset(None), epoch, 2)
        expected = [
            (10 * quarter.image + number, *quarter.visible_box(box))
            for quarter in quarters_of(sample)
            for number, box in enumerate(boxes_of(masks_of(quarter.image)))
        ]
        expected = [row for row in expected if row[3] > row[1] and row[4] > row[2]]
        target = sample.target
        objects = [(label, *box) for label, box in zip(target.labels.tolist(), target.boxes.tolist(), strict=True)]
        assert np.allclose(sorted(objects), sorted(expected), atol=1e-4) and target.masks is None


def test_semantic_map_of_a_mosaic_follows_its_pixels():
    """Law: a pixel keeps its class, and the map is 255 where no image is."""
    for epoch in range(10):
        sample = mix_sample(MOSAIC, CoordinateDataset(tasks=("semantic",)), epoch, 1)
        expected = np.full((90, 130), IGNORE)
        for quarter in quarters_of(sample):
            expected[quarter.pixels] = quarter.visible(semantic_of(quarter.image))[quarter.pixels]
        assert np.array_equal(sample.target.numpy(), expected)
