"""What is drawn for people: the same as on the whole picture, in little time, and of a size to look at."""

import time

import cv2
import numpy as np

from vertebra.engine import blend_masks
from vertebra.engine.drawing import class_color

RNG = np.random.default_rng(0)


def blobs(count: int, shape: tuple[int, int]) -> list[np.ndarray]:
    """Ragged masks with holes, some over the edge of the picture, and an empty one."""
    masks = [np.zeros(shape, bool)]
    for top, left in RNG.integers(-10, 50, (count, 2)).tolist():
        mask = np.zeros(shape, bool)
        part = mask[max(0, top) : top + 25, max(0, left) : left + 30]
        part[:] = RNG.random(part.shape) < 0.9
        masks.append(mask)
    return masks


def test_masks_are_blended_as_on_the_whole_picture():
    """OpenCV's outlines and numpy's arithmetic on whole bitmaps, one mask after the other; the image stays."""
    image = RNG.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    before, expected = image.copy(), image.astype(int)
    pairs = [(mask, class_color(label)) for label, mask in enumerate(blobs(12, image.shape[:2]))]
    for mask, color in pairs:
        expected[mask] = (expected[mask] + color + 1) // 2
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for x, y in (point for outline in outlines for point in outline[:, 0]):
            expected[y, x] = color
    np.testing.assert_array_equal(blend_masks(image, iter(pairs)), expected)
    np.testing.assert_array_equal(image, before)


def test_a_small_mask_on_a_large_photo_costs_little():
    """A law: thirty small masks on twelve million pixels take less time than two copies of the photo for each."""
    photo, mask = np.ones((3000, 4000, 3), np.uint8), np.zeros((3000, 4000), bool)
    mask[1000:1050, 2000:2050] = True
    start = time.process_time()
    for _ in range(60):
        photo.copy()
    copied = time.process_time()
    blend_masks(photo, [(mask, (1, 2, 3))] * 30)
    assert time.process_time() - copied < copied - start
