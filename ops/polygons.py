"""Outlines drawn on a grid over a region: a mask branch's truth as it would be in an image of any resolution."""

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..structures import PolygonMasks

BUDGET = 2**21  # crossings looked for at a time: about 100 MB on their way
LEAST_SIDE = 0.1  # pixels of a region, as in detectron2: a padding row has none


def rasterize_polygon_masks(
    polygon_masks: PolygonMasks, objects: Int64[Tensor, " r"], boxes: Float[Tensor, "r 4"], size: tuple[int, int]
) -> Bool[Tensor, "r h w"]:
    """Whether the middle of each cell of a grid of ``size`` (height, width) over each box is in the box's object.

    A middle that lies on an outline belongs to the object on its right or below, so that objects that touch share no
    cell. Memory beyond the result does not grow with the number of boxes; nothing is read back to the host.
    """
    height, width = size
    together = max(
        1, BUDGET // max(1, polygon_masks.edges.shape[1] * height, polygon_masks.most_parts * height * width)
    )
    pieces = zip(objects.split(together), boxes.split(together), strict=True)
    return torch.cat([_cut(polygon_masks, *piece, height, width) for piece in pieces])


def _cut(
    polygon_masks: PolygonMasks, objects: Int64[Tensor, " r"], boxes: Float[Tensor, "r 4"], height: int, width: int
) -> Bool[Tensor, "r h w"]:
    """A row of cells changes side at every crossing: counted for each row of each part by how far to the right it is,
    and added up from the right."""
    edges = _in_cells(polygon_masks.edges[objects], boxes, height, width)
    rows = torch.arange(height, device=boxes.device)
    left = _cells_left_of_crossings(edges, rows + 0.5, width)
    regions = torch.arange(len(boxes), device=boxes.device)[:, None]
    grids = (regions * polygon_masks.most_parts + polygon_masks.parts[objects]) * (height * (width + 1))
    places = (grids[:, :, None] + (left + rows * (width + 1))).flatten()
    counts = torch.zeros(
        len(boxes) * polygon_masks.most_parts * height * (width + 1), dtype=torch.int32, device=boxes.device
    ).scatter_add_(0, places, torch.ones_like(places, dtype=torch.int32))
    counts = counts.view(len(boxes), polygon_masks.most_parts, height, width + 1)
    crossings = counts.flip(-1).cumsum(-1, dtype=torch.int32).flip(-1)[..., 1:]
    return (crossings % 2 == 1).any(dim=1)


def _in_cells(
    edges: Float32[Tensor, "r e 4"], boxes: Float[Tensor, "r 4"], height: int, width: int
) -> Float[Tensor, "r e 4"]:
    """Edges in the frame of their region's grid, where a cell is 1 wide and 1 high."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=LEAST_SIDE)
    scale = torch.stack([width / sides[:, 0], height / sides[:, 1]], dim=1)
    return (edges - boxes[:, None, :2].repeat(1, 1, 2)) * scale[:, None].repeat(1, 1, 2)


def _cells_left_of_crossings(
    edges: Float[Tensor, "r e 4"], rows: Float[Tensor, " h"], width: int
) -> Int64[Tensor, "r e h"]:
    """How many cells of each row have their middle left of where an edge crosses it; 0 for an edge that does not."""
    x1, y1, x2, y2 = (corner[..., None] for corner in edges.unbind(dim=-1))
    crosses = (y1 <= rows) != (y2 <= rows)
    x = x1 + (rows - y1) * ((x2 - x1) / (y2 - y1))
    return torch.where(crosses, (x - 0.5).ceil().clamp(0, width), 0).long()
