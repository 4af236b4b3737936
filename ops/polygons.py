"""Rasterization of polygon masks on a grid over a region: exact targets for a mask branch at any resolution."""

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..structures import PolygonMasks

BUDGET = 2**21
"""Maximum number of (edge, row) pairs, and of cells, to compute at a time; takes about 100 MB."""
MIN_SIDE = 0.1
"""Minimum side of a region in pixels, as in detectron2: padding rows have empty regions."""


def rasterize_polygon_masks(
    polygon_masks: PolygonMasks, indices: Int64[Tensor, " r"], boxes: Float[Tensor, "r 4"], size: tuple[int, int]
) -> Bool[Tensor, "r h w"]:
    """Rasterize the mask of an object on a grid over each box: a cell is True if its center is inside the object.

    ``indices`` has the object of each box, ``size`` is the (height, width) of the grid in cells. A center on an edge
    belongs to the object on its right or below, so that touching objects share no cell. Temporary memory does not grow
    with the number of boxes, and nothing is read back from the device.
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
    """Rasterize a chunk of boxes.

    A cell is inside a part if an odd number of the part's edges cross its row to the right of it. So the crossings in
    each row of each part are put into bins by the number of cells left of them, and the counts of the bins are summed
    from the right.
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
    """Transform edges from image pixels to the grid of their region, where a cell is 1 wide and 1 high."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=MIN_SIDE)
    scale = torch.stack([width / sides[:, 0], height / sides[:, 1]], dim=1)
    return (edges - boxes[:, None, :2].repeat(1, 1, 2)) * scale[:, None].repeat(1, 1, 2)


def _cells_left_of_crossings(
    edges: Float[Tensor, "r e 4"], rows: Float[Tensor, " h"], width: int
) -> Int64[Tensor, "r e h"]:
    """Return the number of cell centers left of the point where each edge crosses each row; 0 without a crossing."""
    x1, y1, x2, y2 = (coordinate[..., None] for coordinate in edges.unbind(dim=-1))
    crosses = (y1 <= rows) != (y2 <= rows)
    x = x1 + (rows - y1) * ((x2 - x1) / (y2 - y1))
    return torch.where(crosses, (x - 0.5).ceil().clamp(0, width), 0).long()
