"""Bilinear sampling one point at a time, as a reference."""

import math

import torch
from torch import Tensor


def bilinear(maps: Tensor, x: float, y: float) -> Tensor:
    """Return the values (c,) of maps (c, h, w) at a point in cells, whose centers are at 0.5; outside they are zero."""
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    right, bottom = x - 0.5 - left, y - 0.5 - top
    value = torch.zeros(len(maps))
    for row, weight_y in ((top, 1 - bottom), (top + 1, bottom)):
        for column, weight_x in ((left, 1 - right), (left + 1, right)):
            if 0 <= row < maps.shape[1] and 0 <= column < maps.shape[2]:
                value += weight_x * weight_y * maps[:, row, column]
    return value
