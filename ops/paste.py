"""From a mask predicted on a grid over its box to a mask over the image (1703.06870 section 3.1)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..structures import PasteRule, RoIMasks

BUDGET = 2**24  # values of one mask or of several on their way, in float32: 64 MiB


def paste_masks(masks: RoIMasks, boxes: Float[Tensor, "n 4"], threshold: float = 0.5) -> Bool[Tensor, "n h w"]:
    """Where the probability of each mask reaches ``threshold``, in the image that the boxes are in.

    On a CPU each mask is computed inside its box alone, on a GPU as many at once as ``BUDGET`` allows: the memory
    beyond the result does not grow with their number. Paste slice by slice where the result itself would be too much.
    """
    grids, rule, (height, width) = masks.grids, masks.rule, masks.size
    pasted = torch.zeros(len(grids), height, width, dtype=torch.bool, device=grids.device)
    if rule == "padded":
        grids, boxes = _pad(grids, boxes)
    together = _at_once(masks)
    for first in range(0, len(grids), together):
        some = slice(first, first + together)
        whole = (slice(0, height), slice(0, width))
        rows, columns = _extent(boxes[first], masks.size) if together == 1 else whole
        inside = _probabilities(grids[some], boxes[some], rows, columns, rule)
        pasted[some, rows, columns] = inside >= threshold if rule == "centers" else inside > threshold
    return pasted


def _at_once(masks: RoIMasks) -> int:
    """How many masks share a computation."""
    height, width = masks.size
    return 1 if masks.grids.device.type == "cpu" else max(1, BUDGET // (height * width))


def _pad(
    grids: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"]
) -> tuple[Float[Tensor, "n _ _"], Float[Tensor, "n 4"]]:
    """One cell of zeros around each grid, and the boxes that the grids then cover: corners of whole pixels."""
    grown = (grids.shape[-1] + 2) / grids.shape[-1]
    centers, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * grown
    first, last = (centers - halves).trunc(), (centers + halves).trunc()
    return F.pad(grids, (1, 1, 1, 1)), torch.cat([first, torch.maximum(last, first) + 1], dim=1)


def _extent(box: Float[Tensor, " 4"], size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of the image that a box touches."""
    left, top, right, bottom = box.tolist()
    height, width = size
    rows = slice(min(max(int(top) - 1, 0), height), min(max(int(bottom) + 2, 0), height))
    return rows, slice(min(max(int(left) - 1, 0), width), min(max(int(right) + 2, 0), width))


def _probabilities(
    grids: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], rows: slice, columns: slice, rule: PasteRule
) -> Float[Tensor, "n _ _"]:
    """The grids read at the centres of these pixels, bilinearly; 0 outside the boxes."""
    x = torch.arange(columns.start, columns.stop, device=boxes.device, dtype=boxes.dtype) + 0.5
    y = torch.arange(rows.start, rows.stop, device=boxes.device, dtype=boxes.dtype) + 0.5
    sides = (boxes[:, 2:] - boxes[:, :2])[..., None]
    across = (x - boxes[:, 0, None]) / sides[:, 0] * 2 - 1
    down = (y - boxes[:, 1, None]) / sides[:, 1] * 2 - 1
    points = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), dim=-1)
    padding = "zeros" if rule == "centers" else "border"
    read = F.grid_sample(grids[:, None], points, padding_mode=padding, align_corners=False)[:, 0]
    return read * ((across.abs() <= 1)[:, None, :] & (down.abs() <= 1)[:, :, None])
