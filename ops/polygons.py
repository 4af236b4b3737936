"""Polygons drawn on a grid over a region: the target of a mask branch as exact as in an image of any resolution."""

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..structures import PolygonMasks

BUDGET = 2**21
"""How many crossings of an edge and a row of cells are computed at a time, in about 100 MB."""
MIN_SIDE = 0.1
"""The least side of a region in pixels, as in detectron2: a padding row has none."""


def rasterize_polygon_masks(
    polygon_masks: PolygonMasks, indices: Int64[Tensor, " r"], boxes: Float[Tensor, "r 4"], size: tuple[int, int]
) -> Bool[Tensor, "r h w"]:
    """Return, for each box and its object, which cells of a grid over the box have their centre in the object.

    ``indices`` are the objects of the boxes, ``size`` is the grid's (height, width). A centre that lies on an edge
    belongs to the object on its right or below, so that objects that touch have no cell in common. Memory beyond the
    result does not grow with the number of boxes; nothing is read back to the host.
    """
    height, width = size
    crossings = polygon_masks.edges.shape[1] * height
    cells = polygon_masks.most_parts * height * width
    count = max(1, BUDGET // max(1, crossings, cells))
    chunks = zip(indices.split(count), boxes.split(count), strict=True)
    return torch.cat([_rasterize(polygon_masks, *chunk, height, width) for chunk in chunks])


def _rasterize(
    polygon_masks: PolygonMasks, indices: Int64[Tensor, " r"], boxes: Float[Tensor, "r 4"], height: int, width: int
) -> Bool[Tensor, "r h w"]:
    """Rasterize a few boxes at once.

    A cell is inside a part where an odd number of edges cross its row to its right. So for each row of each part the
    crossings are counted by how many cells lie left of them, and these counts are summed from the right.
    """
    edges = _to_cells(polygon_masks.edges[indices], boxes, height, width)
    rows = torch.arange(height, device=boxes.device)
    cells_left = _cells_left_of_crossings(edges, rows + 0.5, width)
    regions = torch.arange(len(boxes), device=boxes.device)[:, None]
    grids = (regions * polygon_masks.most_parts + polygon_masks.parts[indices]) * (height * (width + 1))
    bins = (grids[:, :, None] + (cells_left + rows * (width + 1))).flatten()
    counts = torch.zeros(
        len(boxes) * polygon_masks.most_parts * height * (width + 1), dtype=torch.int32, device=boxes.device
    ).scatter_add_(0, bins, torch.ones_like(bins, dtype=torch.int32))
    counts = counts.view(len(boxes), polygon_masks.most_parts, height, width + 1)
    crossings = counts.flip(-1).cumsum(-1, dtype=torch.int32).flip(-1)[..., 1:]
    return (crossings % 2 == 1).any(dim=1)


def _to_cells(
    edges: Float32[Tensor, "r e 4"], boxes: Float[Tensor, "r 4"], height: int, width: int
) -> Float[Tensor, "r e 4"]:
    """Return the edges in the frame of their region's grid, where a cell is 1 wide and 1 high."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=MIN_SIDE)
    scale = torch.stack([width / sides[:, 0], height / sides[:, 1]], dim=1)
    return (edges - boxes[:, None, :2].repeat(1, 1, 2)) * scale[:, None].repeat(1, 1, 2)


def _cells_left_of_crossings(
    edges: Float[Tensor, "r e 4"], rows: Float[Tensor, " h"], width: int
) -> Int64[Tensor, "r e h"]:
    """Return how many cells of each row have their centre left of where an edge crosses it; 0 where none does."""
    x1, y1, x2, y2 = (coordinate[..., None] for coordinate in edges.unbind(dim=-1))
    crosses = (y1 <= rows) != (y2 <= rows)
    x = x1 + (rows - y1) * ((x2 - x1) / (y2 - y1))
    return torch.where(crosses, (x - 0.5).ceil().clamp(0, width), 0).long()
