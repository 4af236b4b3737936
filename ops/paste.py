"""Pasting of masks that are predicted on a grid over their box into the image (1703.06870 section 3.1)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..structures import PasteRule, RoIMasks
from .device import allows_dynamic_shapes

MASK_BUDGET = 2**24
"""Mask pixels to compute at a time, 64 MiB in float32: one mask of a 16-megapixel image, or many of a small one."""


def paste_masks(masks: RoIMasks, boxes: Float[Tensor, "n 4"], threshold: float = 0.5) -> Bool[Tensor, "n h w"]:
    """Return the bitmaps of predicted masks in their image: True where the probability reaches ``threshold``.

    Under the paste rule ``padded`` the probability must exceed it. ``boxes`` are in pixels of an image of
    ``masks.size``. Temporary memory does not grow with the number of masks, but the result takes one byte per mask and
    pixel; use :func:`paste_masks_in_chunks` if that is too much.
    """
    (height, width), device = masks.size, masks.grids.device
    pasted = torch.zeros(len(masks), height, width, dtype=torch.bool, device=device)
    if allows_dynamic_shapes(device):  # on a CPU each mask is computed only inside its box
        for bitmap, (patch, (left, top)) in zip(pasted, paste_mask_patches(masks, boxes, threshold), strict=True):
            bitmap[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
        return pasted
    grids, regions = _regions(masks, boxes)
    count = max(1, MASK_BUDGET // (height * width))
    for first in range(0, len(grids), count):
        chunk = slice(first, first + count)
        whole_image = slice(0, height), slice(0, width)
        pasted[chunk] = _inside(grids[chunk], regions[chunk], whole_image, masks.rule, threshold)
    return pasted


def paste_mask_patches(
    masks: RoIMasks, boxes: Float[Tensor, "n 4"], threshold: float = 0.5
) -> Iterator[tuple[Bool[Tensor, "_ _"], tuple[int, int]]]:
    """Yield the bitmap of each mask as the part of the image around its box, and the (left, top) of that part.

    Outside this part :func:`paste_masks` is False. The boxes are read from the device.
    """
    grids, regions = _regions(masks, boxes)
    for row in range(len(grids)):
        rows, columns = _extent(regions[row], masks.size)
        (patch,) = _inside(grids[row : row + 1], regions[row : row + 1], (rows, columns), masks.rule, threshold)
        yield patch, (columns.start, rows.start)


def paste_grids(
    grids: Float[Tensor, "b n s s"], boxes: Float[Tensor, "b n 4"], size: tuple[int, int], rule: PasteRule
) -> Bool[Tensor, "b n h w"]:
    """Return the bitmaps of the masks of a batch of images of ``size``: :func:`paste_masks` by matrix products.

    Bilinear interpolation is linear along y and along x. The products need no sampling operator, which a graph for
    another runtime may lack, and less memory than the position of every pixel in every mask.
    """
    flat_grids, flat_boxes = grids.flatten(0, 1), boxes.flatten(0, 1)
    if rule == "padded":
        flat_grids, flat_boxes = _pad(flat_grids, flat_boxes)
    cells = flat_grids.shape[-1]
    x, x_inside = _cell_weights(flat_boxes[:, 0], flat_boxes[:, 2], size[1], cells, rule)
    y, y_inside = _cell_weights(flat_boxes[:, 1], flat_boxes[:, 3], size[0], cells, rule)
    probabilities = y @ flat_grids @ x.mT
    reached = probabilities >= 0.5 if rule == "centers" else probabilities > 0.5
    return (reached & y_inside[:, :, None] & x_inside[:, None]).unflatten(0, grids.shape[:2])


def _cell_weights(
    start: Float[Tensor, " n"], end: Float[Tensor, " n"], pixels: int, cells: int, rule: PasteRule
) -> tuple[Float[Tensor, "n p s"], Bool[Tensor, "n p"]]:
    """Return the weight of each of ``cells`` cells of a grid at the pixel centers along an axis, and whether these are
    inside the box."""
    centers = torch.arange(pixels, device=start.device, dtype=start.dtype) + 0.5
    relative = (centers - start[:, None]) / (end - start)[:, None]
    positions = relative * cells - 0.5
    if rule == "padded":
        positions = positions.clamp(0, cells - 1)
    distances = (positions[:, :, None] - torch.arange(cells, device=start.device)).abs()
    return (1 - distances).clamp(min=0), (relative >= 0) & (relative <= 1)


def paste_masks_in_chunks(
    masks: RoIMasks, boxes: Float[Tensor, "n 4"], threshold: float = 0.5, budget: int = MASK_BUDGET
) -> Iterator[Bool[Tensor, "_ h w"]]:
    """Yield the result of :func:`paste_masks` in chunks of at most ``budget`` pixels, but at least one mask."""
    height, width = masks.size
    count = max(1, budget // (height * width))
    for first in range(0, len(masks), count):
        chunk = slice(first, first + count)
        yield paste_masks(masks[chunk], boxes[chunk], threshold)


def resample_masks(
    grids: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], box: Float[Tensor, " 4"]
) -> Float[Tensor, "n s s"]:
    """Sample masks, given on grids over their boxes, on a grid of the same resolution over another box.

    Probabilities are interpolated bilinearly at the centers of its cells; outside the boxes they are 0.
    """
    steps = (torch.arange(grids.shape[-1], device=grids.device, dtype=box.dtype) + 0.5) / grids.shape[-1]
    points = box[:2, None] + (box[2:] - box[:2])[:, None] * steps
    return _sample(grids, boxes, points[0], points[1], "border")


def _regions(masks: RoIMasks, boxes: Float[Tensor, "n 4"]) -> tuple[Float[Tensor, "n _ _"], Float[Tensor, "n 4"]]:
    """Return the grids and the boxes that they cover under the paste rule of the masks."""
    return _pad(masks.grids, boxes) if masks.rule == "padded" else (masks.grids, boxes)


def _inside(
    grids: Float[Tensor, "n s s"],
    regions: Float[Tensor, "n 4"],
    area: tuple[slice, slice],
    rule: PasteRule,
    threshold: float,
) -> Bool[Tensor, "n _ _"]:
    """Return which pixels in the rows and columns ``area`` of the image are inside each mask."""
    probabilities = _probabilities(grids, regions, *area, rule)
    return probabilities >= threshold if rule == "centers" else probabilities > threshold


def _pad(
    grids: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"]
) -> tuple[Float[Tensor, "n _ _"], Float[Tensor, "n 4"]]:
    """Pad each grid with a border of zeros, and return the grids with the enlarged boxes, truncated to whole pixels."""
    growth = (grids.shape[-1] + 2) / grids.shape[-1]
    centers, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * growth
    first, last = (centers - halves).trunc(), (centers + halves).trunc()
    return F.pad(grids, (1, 1, 1, 1)), torch.cat([first, torch.maximum(last, first) + 1], dim=1)


def _extent(box: Float[Tensor, " 4"], size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of the image that a box touches."""
    left, top, right, bottom = box.tolist()
    height, width = size
    rows = slice(min(max(int(top) - 1, 0), height), min(max(int(bottom) + 2, 0), height))
    return rows, slice(min(max(int(left) - 1, 0), width), min(max(int(right) + 2, 0), width))


def _probabilities(
    grids: Float[Tensor, "n s s"], boxes: Float[Tensor, "n 4"], rows: slice, columns: slice, rule: PasteRule
) -> Float[Tensor, "n _ _"]:
    """Sample the grids bilinearly at the centers of the pixels in ``rows`` and ``columns``; 0 outside the boxes."""
    x = torch.arange(columns.start, columns.stop, device=boxes.device, dtype=boxes.dtype) + 0.5
    y = torch.arange(rows.start, rows.stop, device=boxes.device, dtype=boxes.dtype) + 0.5
    return _sample(grids, boxes, x, y, "zeros" if rule == "centers" else "border")


def _sample(
    grids: Float[Tensor, "n s s"],
    boxes: Float[Tensor, "n 4"],
    x: Float[Tensor, " w"],
    y: Float[Tensor, " h"],
    padding: str,
) -> Float[Tensor, "n h w"]:
    """Sample the grids bilinearly at the points of a lattice, given in pixels; 0 outside the boxes."""
    sides = (boxes[:, 2:] - boxes[:, :2])[..., None]
    across = (x - boxes[:, 0, None]) / sides[:, 0] * 2 - 1
    down = (y - boxes[:, 1, None]) / sides[:, 1] * 2 - 1
    points = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), dim=-1)
    values = F.grid_sample(grids[:, None], points, padding_mode=padding, align_corners=False)[:, 0]
    return values * ((across.abs() <= 1)[:, None, :] & (down.abs() <= 1)[:, :, None])
