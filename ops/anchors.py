"""The references of a dense head: anchor boxes (1506.01497 section 3.1.1) and points (1904.01355 section 3.1).

References are ordered by level, then by row, then by column; the references of one cell are adjacent.
:func:`flatten_cells` puts the output maps of a network into the same order.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

StrideRule = Literal["exact", "grid"]
"""How far apart the references of a level are. ``exact``: the level's stride. ``grid``: the padded image size // the
grid size (torchvision), which is 61 pixels instead of 64 on p6 of an 800-pixel image."""


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], rounded: bool = False) -> Float[Tensor, "a 4"]:
    """Return the anchors of one cell, centered on the origin, ordered by size and then by ratio.

    A size is the square root of the anchor's area, in pixels; a ratio is height over width. ``rounded`` rounds the
    coordinates to whole pixels, as torchvision does and detectron2 does not; it moves a side by up to half a pixel.
    torchvision orders its anchors by ratio and then by size.
    """
    boxes = []
    for size in sizes:
        for ratio in ratios:
            height, width = size * ratio**0.5, size / ratio**0.5
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    anchors = torch.tensor(boxes)
    return anchors.round() if rounded else anchors


def grid_stride(
    stride: int, grid: tuple[int, int], image_size: tuple[int, int], rule: StrideRule = "exact"
) -> tuple[int, int]:
    """Return the (vertical, horizontal) distance in pixels between the references of neighboring cells.

    ``grid`` is (rows, columns) of the level, ``image_size`` the (height, width) of the padded images.
    """
    if rule == "exact":
        return stride, stride
    return image_size[0] // grid[0], image_size[1] // grid[1]


def grid_anchors(cells: Float[Tensor, "a 4"], grid: tuple[int, int], stride: tuple[int, int]) -> Float[Tensor, "_ 4"]:
    """Place the anchors of one cell at every cell of a grid; the first cell is centered on (0, 0).

    ``grid`` is (rows, columns), ``stride`` is (vertical, horizontal) in input pixels per cell.
    """
    rows = torch.arange(grid[0], device=cells.device, dtype=cells.dtype) * stride[0]
    columns = torch.arange(grid[1], device=cells.device, dtype=cells.dtype) * stride[1]
    shift_y, shift_x = torch.meshgrid(rows, columns, indexing="ij")
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1)
    return (shifts[:, :, None] + cells).reshape(-1, 4)


def grid_points(
    grid: tuple[int, int], stride: tuple[int, int], device: torch.device, offset: float = 0.5
) -> Float[Tensor, "_ 2"]:
    """Return a point (x, y) in every cell of a grid, in input pixels; the first cell begins at (0, 0).

    ``grid`` is (rows, columns), ``stride`` is (vertical, horizontal) in input pixels per cell. An ``offset`` of 0.5
    cells gives their centers, 0 their top left corners.
    """
    rows = (torch.arange(grid[0], device=device) + offset) * stride[0]
    columns = (torch.arange(grid[1], device=device) + offset) * stride[1]
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


class PyramidAnchors(nn.Module):
    """Generates the anchors of every level of a pyramid. It has no weights; its buffers are not in the state dict."""

    def __init__(
        self,
        strides: Sequence[int],
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        *,
        rounded: bool = False,
        stride_rule: StrideRule = "exact",
    ) -> None:
        """Compute the anchors of one cell of each level.

        ``strides`` and ``sizes`` are per level; for sizes, ratios and rounding see :func:`cell_anchors`. Raises
        ValueError if the numbers of levels differ, or the levels in the number of anchors per cell.
        """
        super().__init__()
        if len(sizes) != len(strides):
            raise ValueError(f"anchors need sizes for each of {len(strides)} levels; got {len(sizes)}: {tuple(sizes)}")
        counts = {len(level_sizes) * len(ratios) for level_sizes in sizes}
        if len(counts) != 1:
            raise ValueError(f"every level needs the same number of anchors per cell; got the sizes {tuple(sizes)}")
        self.strides = tuple(strides)
        self.stride_rule: StrideRule = stride_rule
        self.per_cell = counts.pop()
        for level, level_sizes in enumerate(sizes):
            self.register_buffer(f"cells_{level}", cell_anchors(level_sizes, ratios, rounded), persistent=False)

    def forward(self, grids: Sequence[tuple[int, int]], image_size: tuple[int, int]) -> list[Float[Tensor, "_ 4"]]:
        """Return the anchors of every level.

        ``grids`` is (rows, columns) per level, ``image_size`` the (height, width) of the padded images.
        """
        anchors = []
        for level, (stride, grid) in enumerate(zip(self.strides, grids, strict=True)):
            distances = grid_stride(stride, grid, image_size, self.stride_rule)
            anchors.append(grid_anchors(self.get_buffer(f"cells_{level}"), grid, distances))
        return anchors


def flatten_cells(maps: Float[Tensor, "b _ h w"], width: int) -> Float[Tensor, "b _ {width}"]:
    """Reshape the output maps of a level to one row of ``width`` values per reference.

    The channels of a cell are grouped by reference, ``width`` channels each.
    """
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, width)
