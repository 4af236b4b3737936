"""Fast resizing, flips and crops of bitmaps give exactly what OpenCV and albumentations give mask by mask."""

import albumentations as A
import numpy as np
import pytest

from vertebra.data.object_fields import resize_bitmaps, resize_nearest
from vertebra.data.transforms.mask_steps import HorizontalFlip, RandomCrop


def random_masks(generator: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Return bitmaps: noise inside random boxes, among them empty ones and single pixels."""
    masks = np.zeros((count, *size), np.uint8)
    for mask in masks:
        (top, bottom), (left, right) = (np.sort(generator.integers(0, side + 1, 2)) for side in size)
        mask[top:bottom, left:right] = generator.random((bottom - top, right - left)) < 0.7
    return masks


@pytest.mark.parametrize("seed", range(40))
def test_bitmaps_are_resized_as_whole_masks(seed):
    """Oracle: OpenCV's INTER_NEAREST_EXACT on each full mask, for up- and downscaling by any factors."""
    generator = np.random.default_rng(seed)
    before, after = (tuple(generator.integers(1, 130, 2).tolist()) for _ in range(2))
    masks = random_masks(generator, 6, before)
    expected = np.stack([resize_nearest(mask, after) for mask in masks])
    assert np.array_equal(resize_bitmaps(masks, after), expected)
    assert resize_bitmaps(masks[:0], after).shape == (0, *after)


@pytest.mark.parametrize("seed", range(40))
def test_flip_and_padded_crop_equal_albumentations_own(seed):
    """Oracle: albumentations' own steps with the same random numbers: masks smaller and larger than the crop."""
    generator = np.random.default_rng(seed)
    size, crop = (generator.integers(1, 60, 2).tolist() for _ in range(2))
    masks = random_masks(generator, 4, tuple(size))
    options = {"pad_if_needed": True, "fill_mask": 0}
    options["pad_position"] = ["top_left", "center", "bottom_right", "random"][seed % 4]
    results = []
    for crop_step, flip_step in ((A.RandomCrop, A.HorizontalFlip), (RandomCrop, HorizontalFlip)):
        compose = A.Compose([crop_step(*crop, **options), flip_step(p=0.5)], seed=seed)
        results.append(compose(image=np.zeros((*size, 3), np.uint8), masks=masks)["masks"])
    assert np.array_equal(*results)
    assert results[1].shape == (4, *crop)
