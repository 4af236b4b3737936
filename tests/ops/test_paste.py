"""Pasting masks from the grids of boxes into an image: against torchvision and a slow loop of detectron2's rule."""

import math

import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from vertebra.ops import (
    fixed_shapes,
    paste,
    paste_mask_patches,
    paste_masks,
    paste_masks_in_chunks,
    resample_masks,
)
from vertebra.structures import RoIMasks

SIZE = (61, 83)


def grids_and_boxes(count=20):
    """Return smooth masks, in which a shift shows, and boxes inside, across every border, tiny and outside."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 5, 5, generator=generator)
    grids = torch.nn.functional.interpolate(coarse, size=(28, 28), mode="bicubic")[:, 0].clamp(0, 1)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([80.0, 60.0]) - 5
    boxes = torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * 50], dim=1)
    boxes[0] = torch.tensor([3.25, 4.5, 3.5, 4.75])
    boxes[1] = torch.tensor([-30.0, -20.0, -10.0, -5.0])
    boxes[2] = torch.tensor([0.0, 0.0, 83.0, 61.0])
    return grids, boxes


def test_padded_rule_equals_torchvision():
    """Oracle: torchvision, every pixel except where the probability equals the threshold to the last bits."""
    grids, boxes = grids_and_boxes()
    touching = torch.arange(len(boxes)) != 1  # torchvision fails on a box outside the image, which it never produces
    grids, boxes = grids[touching], boxes[touching]
    probabilities = paste_masks_in_image(grids[:, None], boxes, SIZE, padding=1)[:, 0]
    masks = paste_masks(RoIMasks(grids, SIZE, "padded"), boxes)
    differ = masks != (probabilities > 0.5)
    assert not (differ & ((probabilities - 0.5).abs() > 1e-5)).any()
    assert masks.any(dim=(1, 2)).sum() > 10


def bilinear_value(grid, box, row, column):
    """Return the value of a grid at the center of a pixel: a cell's value is at its center; outside the grid it is
    0."""
    size = grid.shape[0]
    x = (column + 0.5 - box[0]) / (box[2] - box[0]) * size - 0.5
    y = (row + 0.5 - box[1]) / (box[3] - box[1]) * size - 0.5
    total = 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < size and 0 <= j < size:
                total += grid[i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


def test_centers_rule_equals_a_slow_loop():
    """Oracle: a slow loop over every pixel, written from detectron2's description."""
    grids, boxes = grids_and_boxes(6)
    masks = paste_masks(RoIMasks(grids, SIZE), boxes)
    for grid, box, mask in zip(grids.double().numpy(), boxes.double().numpy(), masks.tolist(), strict=True):
        for row in range(0, SIZE[0], 3):
            for column in range(SIZE[1]):
                probability = bilinear_value(grid, box, row, column)
                assert mask[row][column] == (probability >= 0.5) or abs(probability - 0.5) < 1e-4


@pytest.mark.parametrize("rule", ["centers", "padded"])
@pytest.mark.parametrize("count", [7, 100])
@pytest.mark.parametrize("threshold", [0.5, 0.1])
def test_gpu_and_cpu_paste_the_same(rule, count, threshold, monkeypatch):
    """Law: pasting many masks at once over the whole image, as on a GPU, equals pasting box by box, as on a CPU."""
    grids, boxes = grids_and_boxes()
    masks = RoIMasks(grids, SIZE, rule)
    one_by_one = paste_masks(masks, boxes, threshold)
    monkeypatch.setattr(paste, "allows_dynamic_shapes", lambda device: False)
    monkeypatch.setattr(paste, "MASK_BUDGET", count * SIZE[0] * SIZE[1])
    assert torch.equal(one_by_one, paste_masks(masks, boxes, threshold))


@pytest.mark.parametrize("rule", ["centers", "padded"])
def test_pasting_in_chunks_equals_pasting_at_once(rule):
    """Law: the chunks have the masks in their order, each within the memory budget; a chunk has at least one mask."""
    grids, boxes = grids_and_boxes()
    masks = RoIMasks(grids, SIZE, rule)
    for budget, sizes in ((7 * SIZE[0] * SIZE[1] + 5, [7, 7, 6]), (1, [1] * 20)):
        chunks = list(paste_masks_in_chunks(masks, boxes, 0.3, budget))
        assert [len(chunk) for chunk in chunks] == sizes
        assert torch.equal(torch.cat(chunks), paste_masks(masks, boxes, 0.3))


def test_full_grid_fills_its_box():
    """By hand: pixels whose centers lie well inside the box, and no others."""
    masks = paste_masks(RoIMasks(torch.ones(1, 28, 28), (12, 14)), torch.tensor([[2.0, 3.0, 10.0, 7.0]]))
    expected = torch.zeros(12, 14, dtype=torch.bool)
    expected[3:7, 2:10] = True
    assert torch.equal(masks[0], expected)


@pytest.mark.parametrize("rule", ["centers", "padded"])
def test_pasting_no_masks_gives_an_empty_result(rule):
    """By hand: shape (0, height, width)."""
    assert paste_masks(RoIMasks(torch.zeros(0, 28, 28), SIZE, rule), torch.zeros(0, 4)).shape == (0, *SIZE)
    assert not list(paste_masks_in_chunks(RoIMasks(torch.zeros(0, 28, 28), SIZE, rule), torch.zeros(0, 4)))


@pytest.mark.parametrize("rule", ["centers", "padded"])
def test_patches_hold_all_pixels_of_a_mask(rule):
    """Oracle: the fixed-shape pasting of a GPU, also for boxes outside the image."""
    grids, boxes = grids_and_boxes()
    boxes = torch.cat([boxes, boxes[:1] + 1000, boxes[:1] - 1000])
    grids = torch.cat([grids, grids[:2]])
    masks = RoIMasks(grids, SIZE, rule)
    with fixed_shapes():
        expected = paste_masks(masks, boxes, 0.3)
    for full, (patch, (left, top)) in zip(expected, paste_mask_patches(masks, boxes, 0.3), strict=True):
        bitmap = torch.zeros(SIZE, dtype=torch.bool)
        bitmap[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
        assert torch.equal(bitmap, full)


def test_resampled_mask_is_pasted_at_its_old_place():
    """By hand: a mask of ones over a quarter of a box is one in a quarter of the box's grid; over its own box nothing
    changes."""
    grids, boxes = torch.rand(2, 8, 8), torch.tensor([[10.0, 20.0, 30.0, 40.0], [10.0, 20.0, 30.0, 40.0]])
    torch.testing.assert_close(resample_masks(grids, boxes, boxes[0]), grids)
    quarter = resample_masks(torch.ones(1, 8, 8), boxes[:1], torch.tensor([10.0, 20.0, 50.0, 60.0]))[0]
    assert (quarter[:4, :4] == 1).all() and quarter.sum() == 16
