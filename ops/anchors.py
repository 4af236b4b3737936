"""The references of a dense head: anchor boxes (1506.01497 section 3.1.1) and points (1904.01355 section 3.1).

References go level by level, within a level row by row, and those of one cell follow one another. That is the order in
which :func:`flatten_cells` lays out the maps of a network.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], rounded: bool = False) -> Float[Tensor, "a 4"]:
    """Return the anchors of one cell, centred on the origin: size by size, each at every ratio.

    A size is the square root of an area in square pixels, a ratio is height over width. torchvision rounds anchors to
    whole pixels (``rounded``), which moves a side by up to half a pixel, and goes ratio by ratio; detectron2 does not.
    """
    boxes = []
    for size in sizes:
        for ratio in ratios:
            height, width = size * ratio**0.5, size / ratio**0.5
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    anchors = torch.tensor(boxes)
    return anchors.round() if rounded else anchors


def grid_anchors(cells: Float[Tensor, "a 4"], grid: tuple[int, int], stride: tuple[int, int]) -> Float[Tensor, "_ 4"]:
    """Return the anchors of a cell at every cell of a grid; the first cell is centred on (0, 0).

    ``grid`` is (rows, columns), ``stride`` is (vertical, horizontal) in input pixels per cell.
    """
    rows = torch.arange(grid[0], device=cells.device, dtype=cells.dtype) * stride[0]
    columns = torch.arange(grid[1], device=cells.device, dtype=cells.dtype) * stride[1]
    shift_y, shift_x = torch.meshgrid(rows, columns, indexing="ij")
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1)
    return (shifts[:, :, None] + cells).reshape(-1, 4)


def grid_points(grid: tuple[int, int], stride: tuple[int, int], device: torch.device) -> Float[Tensor, "_ 2"]:
    """Return the centre (x, y) of every cell of a grid, in input pixels; the first cell begins at (0, 0).

    ``grid`` is (rows, columns), ``stride`` is (vertical, horizontal) in input pixels per cell.
    """
    rows = (torch.arange(grid[0], device=device) + 0.5) * stride[0]
    columns = (torch.arange(grid[1], device=device) + 0.5) * stride[1]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


class PyramidAnchors(nn.Module):
    """The anchors of a pyramid. It moves between devices with the head that holds it, and has no weights."""

    def __init__(self, sizes: Sequence[Sequence[float]], ratios: Sequence[float], rounded: bool = False) -> None:
        """Compute the anchors of one cell of each level from its ``sizes``, see :func:`cell_anchors`."""
        super().__init__()
        counts = {len(level_sizes) * len(ratios) for level_sizes in sizes}
        if len(counts) != 1:
            raise ValueError(f"every level needs the same number of anchors per cell; got the sizes {tuple(sizes)}")
        self.per_cell = counts.pop()
        for level, level_sizes in enumerate(sizes):
            self.register_buffer(f"cells_{level}", cell_anchors(level_sizes, ratios, rounded), persistent=False)

    def forward(
        self, grids: Sequence[tuple[int, int]], strides: Sequence[tuple[int, int]]
    ) -> list[Float[Tensor, "_ 4"]]:
        """Return the anchors of every level, whose grids and strides are as in :func:`grid_anchors`."""
        return [
            grid_anchors(self.get_buffer(f"cells_{level}"), grid, stride)
            for level, (grid, stride) in enumerate(zip(grids, strides, strict=True))
        ]


def flatten_cells(maps: Float[Tensor, "b _ h w"], width: int) -> Float[Tensor, "b _ {width}"]:
    """Reshape the maps of a level, with ``width`` channels per reference, to a row per reference."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, width)
