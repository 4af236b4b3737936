"""Semantic segmentation: resizing of logits, class maps, and padded batches of maps."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..structures import IGNORE, LogitWindow, SemanticLogits, copy_all

CLASSES_AT_ONCE = 8
"""Number of classes whose full-size logits are in memory at the same time."""


def resize_maps(
    maps: Float[Tensor, "b c _ _"], size: tuple[int, int], align_corners: bool = False
) -> Float[Tensor, "b c h w"]:
    """Resize maps bilinearly to a (height, width); ``align_corners`` is that of ``torch.nn.functional.interpolate``."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)


def class_logits(prediction: SemanticLogits, start: int, stop: int) -> Float[Tensor, "c h w"]:
    """Return the logits of every pixel for the classes ``start`` to ``stop`` (exclusive)."""
    first, *rest = prediction.windows
    if not rest:
        return resize_maps(_window_logits(first, start, stop)[None], prediction.size)[0]
    frame = first.grid.new_zeros(len(first.grid[start:stop]), *prediction.frame)
    count = first.grid.new_zeros(prediction.frame)
    for window in prediction.windows:
        (top, left), (height, width) = window.corner, window.size
        frame[:, top : top + height, left : left + width] += _window_logits(window, start, stop)
        count[top : top + height, left : left + width] += 1
    return resize_maps(frame.div_(count)[None], prediction.size)[0]


def _window_logits(window: LogitWindow, start: int, stop: int) -> Float[Tensor, "c h w"]:
    """Return the logits of every pixel of a window for the classes ``start`` to ``stop`` (exclusive).

    They are bit-identical to the result of resizing all classes at once.
    """
    first = start
    if len(window.grid[start:stop]) == 3:  # torch has a special kernel for three channels, which rounds differently
        first = max(start - CLASSES_AT_ONCE, 0)
    resized = resize_maps(window.grid[None, first:stop], window.padded_size, window.align_corners)[0]
    return resized[start - first :, : window.size[0], : window.size[1]]


def full_size_logits(prediction: SemanticLogits) -> Float[Tensor, "k h w"]:
    """Return the logits of every pixel for all classes; one float per class and pixel can take gigabytes."""
    return class_logits(prediction, 0, prediction.num_classes)


@torch.no_grad()
def label_map(prediction: SemanticLogits, size: tuple[int, int]) -> UInt8[Tensor, "h w"]:
    """Resize the logits bilinearly to a (height, width), and return the class with the highest logit of every pixel.

    A few classes are resized at a time, so that 150 classes of a large photo fit into memory. Ties go to the lowest
    class, as in ``argmax``. Raises ValueError if there are no classes.
    """
    if not prediction.num_classes:
        raise ValueError("a map of classes needs the logits of at least one class; got none")
    best = prediction.windows[0].grid.new_full(size, -math.inf, dtype=torch.float32)
    labels = torch.zeros(size, dtype=torch.uint8, device=best.device)
    for start in range(0, prediction.num_classes, CLASSES_AT_ONCE):
        logits = class_logits(prediction, start, start + CLASSES_AT_ONCE).float()
        # On a CPU, comparing class by class is ten times as fast as argmax over the first axis.
        for label, candidates in enumerate(resize_maps(logits[None], size)[0], start):
            better = candidates > best
            torch.maximum(best, candidates, out=best)
            torch.maximum(labels, better.view(torch.uint8).mul_(label), out=labels)
    return labels


def pad_maps(maps: Sequence[Int64[Tensor, "_ _"]], size: tuple[int, int]) -> Int64[Tensor, "b h w"]:
    """Pad maps of different sizes to a (height, width) with ``IGNORE``, and stack them."""
    padded = maps[0].new_full((len(maps), *size), IGNORE)
    copy_all([row[: part.shape[0], : part.shape[1]] for row, part in zip(padded, maps, strict=True)], maps)
    return padded
