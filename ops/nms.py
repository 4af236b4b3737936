"""Non-maximum suppression with results of a fixed size."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import nms


def nms_mask(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], threshold: float) -> Bool[Tensor, " n"]:
    """Which boxes survive greedy suppression of those that overlap a better one by more than ``threshold`` IoU."""
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    kept[nms(boxes, scores, threshold)] = True
    return kept


def class_nms_mask(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int64[Tensor, " n"], threshold: float
) -> Bool[Tensor, " n"]:
    """:func:`nms_mask` within each label: labels are moved apart, so that boxes of two never overlap."""
    # In float64 the move costs no precision: 80 labels of 1333 px each leave float32 steps of 1/128 px.
    moved = boxes.double()
    extent = moved.amax().clamp(min=0) + 1
    return nms_mask(moved + (labels * extent)[:, None], scores.double(), threshold)
