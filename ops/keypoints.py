"""Encoding of keypoints as cells of heatmaps over boxes, and decoding of heatmaps (1703.06870 section 5).

A heatmap divides a box into a grid of cells. A keypoint is encoded as the cell that contains it, and a cell is decoded
as its center (detectron2 and torchvision cite Heckbert 1990, "What is the coordinate of a pixel?").
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

DecodingRule = Literal["bicubic", "quarter"]
"""How a keypoint is located on its heatmap. ``bicubic``: the heatmap is resized to the box, rounded up to whole pixels,
and the pixel with the highest value is taken (detectron2, torchvision). ``quarter``: the cell with the highest value is
taken, shifted along x and y by a quarter of a cell toward the higher neighbor (1603.06937, 1804.06208), which is
faster."""


def encode_keypoints(
    keypoints: Float[Tensor, "*n k 3"], boxes: Float[Tensor, "*n 4"], size: int
) -> tuple[Int64[Tensor, "*n k"], Bool[Tensor, "*n k"]]:
    """Return the cell of each keypoint on a grid of ``size`` x ``size`` cells over its box, and whether it has one.

    Cells are numbered row by row. An unlabeled keypoint, or one outside its box, has no cell; its number is then 0. A
    keypoint on the right or lower border of the box belongs to the last cell.
    """
    corners, sides = boxes[..., None, :2], (boxes[..., 2:] - boxes[..., :2])[..., None, :]
    cells = ((keypoints[..., :2] - corners) * (size / sides)).floor()
    cells = torch.where(keypoints[..., :2] == boxes[..., None, 2:], size - 1, cells)
    found = ((cells >= 0) & (cells < size)).all(dim=-1) & (keypoints[..., 2] > 0)  # False for NaN, in empty boxes
    column, row = torch.where(found[..., None], cells, 0).long().unbind(dim=-1)
    return row * size + column, found


def decode_keypoints(
    heatmaps: Float[Tensor, "n k s s"], boxes: Float[Tensor, "n 4"], rule: DecodingRule
) -> tuple[Float[Tensor, "n k 2"], Float[Tensor, "n k"]]:
    """Return the position (x, y) of the maximum of each heatmap, in pixels of the image, and its value."""
    corners, sides = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    if rule == "bicubic":
        rounded = sides.ceil()
        points, values = _maxima_in_boxes(heatmaps, rounded.int().tolist())
    else:
        rounded = torch.full_like(sides, heatmaps.shape[-1])
        points, values = _maxima(heatmaps)
        points = points + 0.25 * _slope_sign(heatmaps, points)
    return points * (sides / rounded)[:, None] + corners, values


def heatmap_scores(heatmaps: Float[Tensor, "n k s s"], maxima: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Return the probability of each maximum: its softmax, normalized over the cells of its heatmap of logits.

    As in detectron2, a score can exceed 1, since the maximum of a resized heatmap can exceed all of its cells.
    """
    return (maxima - heatmaps.flatten(2).logsumexp(dim=2)).exp()


def _maxima_in_boxes(
    heatmaps: Float[Tensor, "n k s s"], sides: list[list[int]]
) -> tuple[Float[Tensor, "n k 2"], Float[Tensor, "n k"]]:
    """Resize the heatmaps of each box to its (width, height); return the center and the value of the highest pixel."""
    points, values = heatmaps.new_zeros(*heatmaps.shape[:2], 2), heatmaps.new_zeros(heatmaps.shape[:2])
    for index, (width, height) in enumerate(sides):
        resized = F.interpolate(heatmaps[index, None], size=(height, width), mode="bicubic", align_corners=False)
        points[index], values[index] = _maxima(resized[0])
    return points, values


def _maxima(maps: Float[Tensor, "*n h w"]) -> tuple[Float[Tensor, "*n 2"], Float[Tensor, "*n"]]:
    """Return the center (x, y) of the cell with the highest value of each map, in cells, and the value."""
    values, indices = maps.flatten(-2).max(dim=-1)
    columns, rows = indices % maps.shape[-1], indices // maps.shape[-1]
    return torch.stack([columns, rows], dim=-1) + 0.5, values


def _slope_sign(heatmaps: Float[Tensor, "n k s s"], centers: Float[Tensor, "n k 2"]) -> Float[Tensor, "n k 2"]:
    """Return the sign of each heatmap's slope along x and y at cells, given by their centers; 0 at the border."""
    size, flat = heatmaps.shape[-1], heatmaps.flatten(2)
    column, row = centers.long().unbind(dim=-1)
    slopes = []
    for position, step in ((column, 1), (row, size)):
        inside = (position > 0) & (position < size - 1)
        index = torch.where(inside, row * size + column, step)[..., None]
        difference = flat.gather(2, index + step) - flat.gather(2, index - step)
        slopes.append(torch.where(inside, difference[..., 0].sign(), 0))
    return torch.stack(slopes, dim=-1)
