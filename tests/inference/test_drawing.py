"""Drawing predictions: masks, boxes, colors and text."""

import cv2
import numpy as np
import torch

from vertebra.inference import blend_masks, class_color, draw_boxes, draw_lines, draw_panoptic
from vertebra.structures import IGNORE, PanopticSegmentation, Segment

RNG = np.random.default_rng(0)


def ragged_masks(count: int, shape: tuple[int, int]) -> list[np.ndarray]:
    """Return masks with holes, some of them across the border of the image, and an empty one."""
    masks = [np.zeros(shape, bool)]
    for top, left in RNG.integers(-10, 50, (count, 2)).tolist():
        mask = np.zeros(shape, bool)
        part = mask[max(0, top) : top + 25, max(0, left) : left + 30]
        part[:] = RNG.random(part.shape) < 0.9
        masks.append(mask)
    return masks


def test_masks_are_blended_and_outlined():
    """Oracle: numpy's arithmetic and OpenCV's contours on full-size bitmaps, one mask after the other.

    The input image is not changed.
    """
    image = RNG.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    before, expected = image.copy(), image.astype(int)
    pairs = [(mask, class_color(label)) for label, mask in enumerate(ragged_masks(12, image.shape[:2]))]
    for mask, color in pairs:
        expected[mask] = (expected[mask] + color + 1) // 2
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for x, y in (point for outline in outlines for point in outline[:, 0]):
            expected[y, x] = color
    np.testing.assert_array_equal(blend_masks(image, iter(pairs)), expected)
    np.testing.assert_array_equal(image, before)


def test_every_label_has_another_color():
    """Law: for all labels of a semantic map; the first ones differ much, and black text is readable on all of them."""
    colors = np.array([class_color(label) for label in range(IGNORE)], int)
    assert len(np.unique(colors, axis=0)) == IGNORE
    distances = np.abs(colors[:8, None] - colors[None, :8]).sum(axis=2)
    assert distances[~np.eye(8, dtype=bool)].min() > 60
    assert colors.max(axis=1).min() >= 200


def test_boxes_are_drawn_in_the_colors_of_their_classes():
    """By hand: the color behind the names of two boxes, whose classes share a hue with others."""
    image = np.full((400, 600, 3), 128, np.uint8)
    boxes = torch.tensor([[10.0, 100.0, 200.0, 300.0], [300.0, 100.0, 500.0, 300.0]])
    drawn = draw_boxes(image, boxes, torch.tensor([0, 81]), [str(label) for label in range(90)])
    assert tuple(drawn[99, 10].tolist()) == class_color(0)
    assert tuple(drawn[99, 300].tolist()) == class_color(81)
    assert len({class_color(0), class_color(1), class_color(80), class_color(81)}) == 4


def test_text_is_below_the_image_and_small_images_are_enlarged():
    """By hand: an image of 60 pixels is drawn three times as wide, one of 400 at its size; the text below is black
    on white."""
    assert draw_lines(np.full((40, 60, 3), 200, np.uint8), ["dog"]).shape == (120 + 20, 180, 3)
    wide = np.full((50, 400, 3), 7, np.uint8)
    picture = draw_lines(wide, ["dog", "cat"])
    np.testing.assert_array_equal(picture[:50], wide)
    strip = picture[50:]
    assert len(strip) == 36 and strip.max() == 255 and strip[:18].min() < 50 and strip[18:].min() < 50


def test_panoptic_segments_are_drawn_with_a_legend():
    """By hand: stuff is blended by half, a thing is outlined in its color too, void is unchanged, and below there is a
    line and a square for each class."""
    image = np.full((40, 400, 3), 100, np.uint8)
    ids = torch.zeros(40, 400, dtype=torch.int32)
    ids[:, 100:], ids[10:30, 200:240] = 7, 3
    drawn = draw_panoptic(
        image, PanopticSegmentation(ids, (Segment(7, 2, False), Segment(3, 0, True))), ("cat", "dog", "sky")
    )
    assert (drawn[:40, :100] == 100).all() and (image == 100).all()
    for row, column, label in ((5, 300, 2), (20, 220, 0)):
        assert drawn[row, column].tolist() == [(100 + value + 1) // 2 for value in class_color(label)]
    assert tuple(drawn[10, 220].tolist()) == class_color(0)
    legend = drawn[40:]
    assert len(legend) == 2 * 16 + 4
    assert [tuple(legend[8 + 16 * line, 8].tolist()) for line in range(2)] == [class_color(0), class_color(2)]
