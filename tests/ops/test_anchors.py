"""Anchors and points of a pyramid: published tables, torchvision's generator, and the order that heads rely on."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from vertebra.ops import PyramidAnchors, cell_anchors, flatten_cells, grid_anchors, grid_points


def test_cell_anchors_equal_detectron2s_published_table():
    """Oracle: the table of detectron2's own test: sizes 32 and 64, ratios 1/4, 1, 4."""
    expected = [
        [-32, -8, 32, 8], [-16, -16, 16, 16], [-8, -32, 8, 32],
        [-64, -16, 64, 16], [-32, -32, 32, 32], [-16, -64, 16, 64],
    ]  # fmt: skip
    assert cell_anchors([32.0, 64.0], [0.25, 1.0, 4.0]).tolist() == expected


def test_grid_anchors_equal_torchvisions():
    """Oracle: torchvision's AnchorGenerator (rounded), on a grid that is not square."""
    peer = AnchorGenerator(sizes=((32,),), aspect_ratios=((0.5, 1.0, 2.0),))
    images = ImageList(torch.zeros(1, 3, 48, 80), [(48, 80)])
    expected = peer(images, [torch.zeros(1, 8, 3, 5)])[0]
    assert torch.equal(grid_anchors(cell_anchors([32.0], [0.5, 1.0, 2.0], True), (3, 5), (16, 16)), expected)


def test_pyramid_anchors_equal_torchvisions_level_by_level():
    """Oracle: torchvision's AnchorGenerator with RetinaNet's sizes, of which every level has three.

    In a cell it goes ratio by ratio; ours goes size by size, as detectron2's.
    """
    sizes = tuple((x, x * 2 ** (1 / 3), x * 2 ** (2 / 3)) for x in (32.0, 64.0))
    peer = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 2)
    grids = [(6, 10), (3, 5)]
    images = ImageList(torch.zeros(1, 3, 48, 80), [(48, 80)])
    expected = peer(images, [torch.zeros(1, 8, *grid) for grid in grids])[0]
    expected = expected.view(-1, 3, 3, 4).transpose(1, 2).reshape(-1, 4)
    anchors = PyramidAnchors((8, 16), sizes, (0.5, 1.0, 2.0), rounded=True)
    levels = anchors(grids, (48, 80))
    assert anchors.per_cell == 9 and [len(level) for level in levels] == [6 * 10 * 9, 3 * 5 * 9]
    assert torch.equal(torch.cat(levels), expected)
    assert not anchors.state_dict(), "anchors follow from the config; they are no weights"


def test_points_are_the_centres_of_cells():
    """By hand (1904.01355 section 3.1): a grid of 2 x 3 cells of 8 pixels."""
    points = grid_points((2, 3), (8, 8), torch.device("cpu"))
    assert points.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_network_maps_are_laid_out_as_the_anchors_are():
    """Law: a map that says where it is, for every anchor of a cell, lies beside the anchors of that place."""
    cells, grid = cell_anchors([8.0], [0.5, 1.0]), (3, 4)
    anchors = grid_anchors(cells, grid, (16, 16))
    rows, columns = torch.meshgrid(torch.arange(3.0) * 16, torch.arange(4.0) * 16, indexing="ij")
    maps = torch.stack([columns, rows, columns, rows])[None].repeat(2, 2, 1, 1)  # two anchors of four channels
    laid_out = flatten_cells(maps, 4)
    assert laid_out.shape == (2, 24, 4)
    assert torch.equal(laid_out[1] + cells.repeat(12, 1), anchors)


def test_levels_of_different_numbers_of_anchors_are_refused():
    """ValueError that shows the sizes."""
    with pytest.raises(ValueError, match=r"same number of anchors per cell; got the sizes \(\(8.0,\), \(8.0, 16.0\)\)"):
        PyramidAnchors((4, 8), ((8.0,), (8.0, 16.0)), (1.0,))
