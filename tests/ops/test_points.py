"""Sampling and choosing of points, against loops over points and torchvision's RoIAlign."""

import pytest
import torch
from torchvision.ops import roi_align

from vertebra.ops import (
    cell_centers,
    choose_points,
    labels_at_points,
    point_uncertainty,
    points_in_boxes,
    random_points,
    sample_points,
    sample_points_of_regions,
    subdivide,
)

from ..helpers.plain_points import bilinear


def rand(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def test_sampled_points_equal_a_plain_loop():
    """Oracle: every point alone; near the border the maps fade to zero."""
    maps, points = rand(2, 3, 4, 6), rand(2, 20, 2, seed=1)
    points[0, 0] = torch.tensor([0.0, 1.0])
    sampled = sample_points(maps, points)
    for row in range(2):
        for index, (x, y) in enumerate(points[row].tolist()):
            torch.testing.assert_close(sampled[row, :, index], bilinear(maps[row], x * 6, y * 4), atol=1e-5, rtol=1e-5)


def test_points_of_regions_equal_roi_align():
    """Oracle: torchvision's aligned RoIAlign with one sample per bin takes the values at the centers of the bins."""
    level = rand(2, 3, 20, 30)
    boxes = torch.tensor([[10.0, 8.0, 60.0, 50.0], [21.5, 13.0, 95.0, 70.0]]).expand(2, 2, 4)
    points = cell_centers(torch.arange(49), 7, 7).expand(2, 2, 49, 2)
    sampled = sample_points_of_regions(level, 4, boxes, points)
    expected = roi_align(level, list(boxes), 7, spatial_scale=1 / 4, sampling_ratio=1, aligned=True)
    torch.testing.assert_close(sampled.flatten(0, 1), expected.flatten(2), atol=1e-5, rtol=1e-5)


def test_half_precision_features_are_sampled_at_exact_points():
    """Law: coordinates are not rounded to half precision, which would move a point at pixel 1000 by half a pixel."""
    level, boxes = rand(1, 2, 300, 300), torch.tensor([[[1000.0, 1000.0, 1010.0, 1010.0]]])
    points = rand(1, 1, 8, 2, seed=1)
    half = sample_points_of_regions(level.bfloat16(), 4, boxes, points)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), sample_points_of_regions(level, 4, boxes, points), atol=0.01, rtol=0)


def test_points_and_cells_by_hand():
    """By hand: the last cell of a grid of 2 rows and 4 columns, and its center in a box."""
    center = cell_centers(torch.tensor([7]), 2, 4)
    assert center.tolist() == [[0.875, 0.75]]
    assert points_in_boxes(center, torch.tensor([10.0, 20.0, 18.0, 28.0])).tolist() == [[17.0, 26.0]]


def test_labels_at_points_by_hand():
    """By hand: cells of a map of 2 x 4; a point on the right or lower border belongs to the last cell."""
    labels = torch.arange(8).view(1, 2, 4)
    points = torch.tensor([[[0.0, 0.0], [0.49, 0.2], [0.51, 0.6], [1.0, 1.0]]])
    assert labels_at_points(labels, points).tolist() == [[0, 1, 6, 7]]


def test_uncertainty_by_hand():
    """By hand: minus the absolute value of a mask's logit; for classes, the second best minus the best."""
    assert point_uncertainty(torch.tensor([[[-2.0, 0.5]]])).tolist() == [[-2.0, -0.5]]
    assert point_uncertainty(torch.tensor([[[1.0], [4.0], [3.5]]])).tolist() == [[-0.5]]


@pytest.mark.parametrize("classes", [1, 3])
def test_chosen_points_equal_a_plain_loop(classes):
    """Oracle: the candidates sorted by the uncertainty of the logits interpolated at each, then the uniform points."""
    logits, drawn = rand(2, classes, 5, 5) - 0.5, rand(2, 30, 2, seed=1)
    chosen = choose_points(logits, drawn, num_uncertain=6, num_uniform=4)
    for row in range(2):
        values = [bilinear(logits[row], x * 5, y * 5).sort(descending=True).values for x, y in drawn[row, :26].tolist()]
        certain = [abs(value[0]) if classes == 1 else value[0] - value[1] for value in values]
        order = sorted(range(26), key=lambda index: certain[index])[:6]
        assert torch.equal(chosen[row], drawn[row, [*order, *range(26, 30)]])


def test_subdivision_by_hand():
    """By hand: of the 4x4 cells of an upsampled 2x2 mask, the four nearest to 0 are replaced by their column's x.

    The mask is -3 in the left and 1 in the right column. Bilinear upsampling gives -3, -2, 0 and 1.
    """
    logits = torch.tensor([[[[-3.0, 1.0], [-3.0, 1.0]]]])
    seen = []

    def predict(points: torch.Tensor) -> torch.Tensor:
        seen.append(points)
        return 10 * points[..., 0][:, None]

    refined = subdivide(logits, 4, predict)
    assert refined[0, 0].tolist() == [[-3.0, -2.0, 6.25, 1.0]] * 4
    assert seen[0][0].sort(dim=0).values.tolist() == [[0.625, 0.125], [0.625, 0.375], [0.625, 0.625], [0.625, 0.875]]


def test_random_points_of_a_region_do_not_depend_on_others():
    """Law: with more regions or another image before it, a region of an image gets the same points; they are uniform
    and differ between regions and images."""
    points = random_points(torch.tensor([5, 6]), regions=3, count=50)
    assert points.shape == (2, 3, 50, 2)
    assert torch.equal(random_points(torch.tensor([6]), regions=7, count=50)[0, :3], points[1])
    assert len(points.flatten(0, 2).unique(dim=0)) == 300
    assert points.amin() >= 0 and points.amax() < 1 and abs(points.mean() - 0.5) < 0.05
