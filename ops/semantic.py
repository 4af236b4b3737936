"""Maps of classes, made and put together."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..structures import IGNORE

CLASSES_AT_ONCE = 8


def label_map(logits: Float[Tensor, "k h w"], size: tuple[int, int]) -> UInt8[Tensor, "H W"]:
    """The likeliest class of every pixel at another (height, width); logits are resized bilinearly before.

    Classes are resized a few at a time, so that 150 of them on a large photo fill no memory; of equal ones the first
    wins, as in ``argmax``.
    """
    best, labels = None, None
    for start in range(0, len(logits), CLASSES_AT_ONCE):
        part = logits[start : start + CLASSES_AT_ONCE].float()
        if size != part.shape[1:]:
            part = F.interpolate(part[None], size, mode="bilinear", align_corners=False)[0]
        value, label = part.max(dim=0)
        label = (label + start).to(torch.uint8)
        if best is None or labels is None:
            best, labels = value, label
        else:
            better = value > best
            best, labels = torch.where(better, value, best), torch.where(better, label, labels)
    if labels is None:
        raise ValueError("a map of classes needs the logits of at least one class")
    return labels


def pad_maps(maps: Sequence[Int64[Tensor, "_ _"]], size: tuple[int, int]) -> Int64[Tensor, "b h w"]:
    """Maps of different sizes in one tensor of a (height, width); what they do not cover is ignored."""
    padded = maps[0].new_full((len(maps), *size), IGNORE)
    for row, each in zip(padded, maps, strict=True):
        row[: each.shape[0], : each.shape[1]] = each
    return padded
