"""The GPU kernel of :func:`vertebra.ops.nms_mask`, in Triton. Importing this module needs the package ``triton``."""

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@triton.jit
def _suppress(boxes, labels, kept, count, threshold, BLOCK: tl.constexpr):
    """Apply greedy NMS to the boxes of one image, which are sorted by descending score.

    One program holds all boxes of an image in registers, and goes through them once, best first. ``kept`` is 1 for
    candidates; the result is written to it.
    """
    image = tl.program_id(0)
    boxes += image * count * 4
    labels += image * count
    kept += image * count
    row = tl.arange(0, BLOCK)
    inside = row < count
    x1 = tl.load(boxes + 4 * row, mask=inside, other=0.0)
    y1 = tl.load(boxes + 4 * row + 1, mask=inside, other=0.0)
    x2 = tl.load(boxes + 4 * row + 2, mask=inside, other=0.0)
    y2 = tl.load(boxes + 4 * row + 3, mask=inside, other=0.0)
    label = tl.load(labels + row, mask=inside, other=-1)
    alive = tl.load(kept + row, mask=inside, other=0).to(tl.int32)
    area = (x2 - x1) * (y2 - y1)
    for best in range(count):
        is_alive = tl.sum(tl.where(row == best, alive, 0))
        if is_alive > 0:  # pyright: ignore[reportOperatorIssue]
            left = tl.load(boxes + 4 * best)
            top = tl.load(boxes + 4 * best + 1)
            right = tl.load(boxes + 4 * best + 2)
            bottom = tl.load(boxes + 4 * best + 3)
            width = tl.maximum(tl.minimum(x2, right) - tl.maximum(x1, left), 0.0)
            height = tl.maximum(tl.minimum(y2, bottom) - tl.maximum(y1, top), 0.0)
            intersection = width * height
            iou = tl.div_rn(intersection, (right - left) * (bottom - top) + area - intersection)
            suppressed = (row > best) & (label == tl.load(labels + best)) & (iou > threshold)
            alive = tl.where(suppressed, 0, alive)
    tl.store(kept + row, alive.to(tl.int8), mask=inside)


def nms_mask_of_batch(
    boxes: Float[Tensor, "b n 4"], scores: Float[Tensor, "b n"], labels: Int64[Tensor, "b n"], threshold: float
) -> Bool[Tensor, "b n"]:
    """Return which boxes NMS keeps, see :func:`vertebra.ops.nms_mask`; one program per image, and nothing is read back.

    Each program loops over the boxes of its image; only a box that is kept is compared with all others.
    """
    count = scores.shape[1]
    ordered = scores.sort(dim=1, descending=True, stable=True)
    order = ordered.indices
    kept = (ordered.values > -torch.inf).to(torch.int8)
    if count:
        _suppress[(len(boxes),)](
            boxes.gather(1, order[:, :, None].expand(-1, -1, 4)).contiguous(),
            labels.gather(1, order),
            kept,
            count,
            threshold,
            BLOCK=max(32, triton.next_power_of_2(count)),
            num_warps=16 if count <= 4096 else 32,  # pyright: ignore[reportCallIssue]
        )
    return torch.zeros_like(kept).scatter(1, order, kept).bool()
