"""Point sampling for PointRend (1912.08193 section 3): reading maps at points, and selecting uncertain points.

A point is (x, y) in relative coordinates of its map or region: (0, 0) is the top left and (1, 1) the bottom right
corner, so that the center of the first of n cells is at 0.5 / n.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .distributed import uniform_from_seeds
from .select import gather_rows, top_scores
from .semantic import resize_maps


def random_points(seeds: Int64[Tensor, " b"], regions: int, count: int) -> Float[Tensor, "b {regions} {count} 2"]:
    """Draw ``count`` uniformly distributed points for each region of every image; ``regions`` is their number.

    The points of a region depend only on the seed of its image and its index, not on the number of regions.
    """
    return uniform_from_seeds(seeds, regions * count * 2).view(len(seeds), regions, count, 2)


def cell_centers(cells: Int64[Tensor, "*n p"], rows: int, columns: int) -> Float[Tensor, "*n p 2"]:
    """Return the centers of cells of a grid, in relative coordinates; cells are numbered row by row."""
    return torch.stack([(cells % columns + 0.5) / columns, (cells // columns + 0.5) / rows], dim=-1)


def points_in_boxes(points: Float[Tensor, "*n p 2"], boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n p 2"]:
    """Convert points relative to boxes to the coordinates in which the boxes are given."""
    corners, sides = boxes[..., None, :2], (boxes[..., 2:] - boxes[..., :2])[..., None, :]
    return corners + points * sides


def sample_points(maps: Float[Tensor, "n c _ _"], points: Float[Tensor, "n p 2"]) -> Float[Tensor, "n c p"]:
    """Sample maps at points by bilinear interpolation, in float32 or higher precision; maps are padded with zeros."""
    dtype = torch.promote_types(maps.dtype, torch.float32)
    grid = (2 * points - 1)[:, :, None].to(dtype)
    return F.grid_sample(maps.to(dtype), grid, align_corners=False)[..., 0].to(maps.dtype)


def sample_points_of_regions(
    level: Float[Tensor, "b c _ _"], stride: int, boxes: Float[Tensor, "b r 4"], points: Float[Tensor, "b r p 2"]
) -> Float[Tensor, "b r c p"]:
    """Sample a pyramid level at points relative to ``boxes``, which are in pixels of the image."""
    height, width = level.shape[-2:]
    size = boxes.new_tensor([width * stride, height * stride])
    relative = points_in_boxes(points, boxes) / size
    sampled = sample_points(level, relative.flatten(1, 2))
    return sampled.unflatten(2, points.shape[1:3]).transpose(1, 2)


def sample_bitmaps(
    masks: Bool[Tensor, "m h w"],
    rows: Int64[Tensor, "*n"],
    sizes: Int64[Tensor, "*n 2"],
    points: Float[Tensor, "*n p 2"],
) -> Float[Tensor, "*n p"]:
    """Sample masks at points by bilinear interpolation; outside the image, masks are 0.

    ``rows`` is the index of the mask for each set of points, ``sizes`` the (height, width) of its image. The points are
    in pixels. To save memory, only the cells that are read are converted to floating point.
    """
    height, width = masks.shape[1:]
    cells = points - 0.5
    corner = cells.floor()
    fraction = cells - corner
    values = torch.zeros_like(points[..., 0])
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cell = corner.long() + torch.tensor(shift, device=points.device)
        weights = torch.where(torch.tensor(shift, device=points.device) == 1, fraction, 1 - fraction).prod(dim=-1)
        inside = ((cell >= 0) & (cell < sizes.flip(-1)[..., None, :])).all(dim=-1)
        column, row = cell[..., 0].clamp(0, width - 1), cell[..., 1].clamp(0, height - 1)
        values = values + weights * (masks[rows[..., None], row, column] & inside)
    return values


def labels_at_points(maps: Int64[Tensor, "n _ _"], points: Float[Tensor, "n p 2"]) -> Int64[Tensor, "n p"]:
    """Return the label of the cell that contains each point."""
    height, width = maps.shape[-2:]
    columns = (points[..., 0] * width).long().clamp(0, width - 1)
    rows = (points[..., 1] * height).long().clamp(0, height - 1)
    return maps.flatten(1).gather(1, rows * width + columns)


def point_uncertainty(logits: Float[Tensor, "n k *d"]) -> Float[Tensor, "n *d"]:
    """Return the uncertainty of logits: 0 at the decision boundary, and negative everywhere else.

    For a single logit it is the negative absolute value (section 3.1); for several classes it is the second highest
    minus the highest logit, as in detectron2 (section 4.2 uses probabilities).
    """
    if logits.shape[1] == 1:
        return -logits[:, 0].abs()
    best = logits.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def choose_points(
    logits: Float[Tensor, "n k _ _"], drawn: Float[Tensor, "n d 2"], num_uncertain: int, num_uniform: int
) -> Float[Tensor, "n p 2"]:
    """Choose training points among the random points in ``drawn`` (section 3.1).

    The last ``num_uniform`` points are always taken. The others are candidates: of these, the ``num_uncertain`` points
    are taken at which the interpolated logits are most uncertain.
    """
    num_candidates = drawn.shape[1] - num_uniform
    candidates, uniform = drawn[:, :num_candidates], drawn[:, num_candidates:]
    best = top_scores(point_uncertainty(sample_points(logits, candidates)), num_uncertain)
    return torch.cat([gather_rows(candidates, best.indices), uniform], dim=1)


def subdivide(
    logits: Float[Tensor, "n k _ _"], count: int, predict: Callable[[Tensor], Tensor]
) -> Float[Tensor, "n k _ _"]:
    """Resize logits to twice their resolution, and recompute the ``count`` most uncertain cells (section 3.1).

    ``predict`` computes logits (n, k, p) at points (n, p, 2).
    """
    rows, columns = 2 * logits.shape[-2], 2 * logits.shape[-1]
    cells = resize_maps(logits, (rows, columns)).flatten(2)
    best = top_scores(point_uncertainty(cells), count)
    predicted = predict(cell_centers(best.indices, rows, columns))
    cells = cells.scatter(2, best.indices[:, None].expand_as(predicted), predicted)
    return cells.unflatten(2, (rows, columns))
