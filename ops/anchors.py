"""Anchors: the reference boxes that a dense head corrects (1506.01497 section 3.1.1)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], rounded: bool = False) -> Float[Tensor, "a 4"]:
    """Anchors of one cell, centred on the origin: every size (square root of the area, pixels) at every ratio (h / w).

    torchvision rounds them to whole pixels (``rounded``), moving a side by up to half a pixel; detectron2 does not.
    """
    boxes = []
    for size in sizes:
        for ratio in ratios:
            height, width = size * ratio**0.5, size / ratio**0.5
            boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    anchors = torch.tensor(boxes)
    return anchors.round() if rounded else anchors


def grid_anchors(cells: Float[Tensor, "a 4"], grid: tuple[int, int], stride: tuple[int, int]) -> Float[Tensor, "_ 4"]:
    """A cell's anchors at every cell of a ``(rows, columns)`` grid, row by row; the first cell is centred on (0, 0).

    ``stride`` is (vertical, horizontal), input pixels per cell.
    """
    rows = torch.arange(grid[0], device=cells.device, dtype=cells.dtype) * stride[0]
    columns = torch.arange(grid[1], device=cells.device, dtype=cells.dtype) * stride[1]
    shift_y, shift_x = torch.meshgrid(rows, columns, indexing="ij")
    shifts = torch.stack([shift_x, shift_y, shift_x, shift_y], dim=-1)
    return (shifts[:, :, None] + cells).reshape(-1, 4)
