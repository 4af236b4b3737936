"""Points on maps: sampling of maps at points, and selection of uncertain points (PointRend, 1912.08193 section 3).

A point is (x, y) relative to its map or region: (0, 0) is the top left corner and (1, 1) the bottom right one, so that
the center of the first of n cells is at 0.5 / n.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from .distributed import uniform_from_seed
from .select import gather_rows, top_scores
from .semantic import resize_maps


def random_points(seeds: Int64[Tensor, " b"], regions: int, count: int) -> Float[Tensor, "b {regions} {count} 2"]:
    """Draw ``count`` uniform points for each of the ``regions`` of every image.

    The points of a region depend only on the seed of its image and on its index, not on the number of regions.
    """
    numbers = torch.stack([uniform_from_seed(seed, regions * count * 2) for seed in seeds])
    return numbers.view(len(seeds), regions, count, 2)


def cell_centers(cells: Int64[Tensor, "*n p"], rows: int, columns: int) -> Float[Tensor, "*n p 2"]:
    """Return the centers of cells, which are counted row by row, of a grid."""
    return torch.stack([(cells % columns + 0.5) / columns, (cells // columns + 0.5) / rows], dim=-1)


def points_in_boxes(points: Float[Tensor, "*n p 2"], boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n p 2"]:
    """Transform points that are relative to boxes into the frame of the boxes."""
    corners, sides = boxes[..., None, :2], (boxes[..., 2:] - boxes[..., :2])[..., None, :]
    return corners + points * sides


def sample_points(maps: Float[Tensor, "n c _ _"], points: Float[Tensor, "n p 2"]) -> Float[Tensor, "n c p"]:
    """Sample maps bilinearly at points, in float32 or more; beyond the border the maps are zero."""
    dtype = torch.promote_types(maps.dtype, torch.float32)
    grid = (2 * points - 1)[:, :, None].to(dtype)
    return F.grid_sample(maps.to(dtype), grid, align_corners=False)[..., 0].to(maps.dtype)


def sample_points_of_regions(
    level: Float[Tensor, "b c _ _"], stride: int, boxes: Float[Tensor, "b r 4"], points: Float[Tensor, "b r p 2"]
) -> Float[Tensor, "b r c p"]:
    """Sample a level of a pyramid at points that are relative to ``boxes``, in pixels of the image."""
    height, width = level.shape[-2:]
    size = boxes.new_tensor([width * stride, height * stride])
    relative = points_in_boxes(points, boxes) / size
    sampled = sample_points(level, relative.flatten(1, 2))
    return sampled.unflatten(2, points.shape[1:3]).transpose(1, 2)


def labels_at_points(maps: Int64[Tensor, "n _ _"], points: Float[Tensor, "n p 2"]) -> Int64[Tensor, "n p"]:
    """Return the values of the cells that points lie in."""
    height, width = maps.shape[-2:]
    columns = (points[..., 0] * width).long().clamp(0, width - 1)
    rows = (points[..., 1] * height).long().clamp(0, height - 1)
    return maps.flatten(1).gather(1, rows * width + columns)


def point_uncertainty(logits: Float[Tensor, "n k *d"]) -> Float[Tensor, "n *d"]:
    """Return how near logits are to another decision; 0 is the most uncertain, all others are negative.

    It is minus the absolute value of a single logit (section 3.1), and the second highest minus the highest logit of
    several classes (detectron2; section 4.2 has the probabilities).
    """
    if logits.shape[1] == 1:
        return -logits[:, 0].abs()
    best = logits.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def choose_points(
    logits: Float[Tensor, "n k _ _"], drawn: Float[Tensor, "n d 2"], num_uncertain: int, num_uniform: int
) -> Float[Tensor, "n p 2"]:
    """Choose points for training among random ones (section 3.1).

    The last ``num_uniform`` points of ``drawn`` are taken as they are; the others are candidates, of which the
    ``num_uncertain`` are taken where the logits, interpolated at the candidates, are the most uncertain.
    """
    num_candidates = drawn.shape[1] - num_uniform
    candidates, uniform = drawn[:, :num_candidates], drawn[:, num_candidates:]
    best = top_scores(point_uncertainty(sample_points(logits, candidates)), num_uncertain)
    return torch.cat([gather_rows(candidates, best.indices), uniform], dim=1)


def subdivide(
    logits: Float[Tensor, "n k _ _"], count: int, predict: Callable[[Tensor], Tensor]
) -> Float[Tensor, "n k _ _"]:
    """Resize logits to twice their resolution, and replace those of the ``count`` most uncertain cells (section 3.1).

    ``predict`` returns the logits (n, k, p) at points (n, p, 2).
    """
    rows, columns = 2 * logits.shape[-2], 2 * logits.shape[-1]
    cells = resize_maps(logits, (rows, columns)).flatten(2)
    best = top_scores(point_uncertainty(cells), count)
    predicted = predict(cell_centers(best.indices, rows, columns))
    cells = cells.scatter(2, best.indices[:, None].expand_as(predicted), predicted)
    return cells.unflatten(2, (rows, columns))
