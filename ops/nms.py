"""Non-maximum suppression of a batch of images as one operator, which compiled graphs contain as a whole.

The operator takes all images and labels in one call, and the shape of its result does not depend on values. So a
compiled graph does not break at it, and on a GPU with Triton nothing is read back.
"""

import contextlib
import functools
import importlib.util
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop
from torchvision.ops import nms

from .boxes import pairwise_iou

NO_CANDIDATE = -torch.inf
"""The score of a box that takes no part in the selection: it sorts last, suppresses nothing and is never kept."""


def nms_mask(
    boxes: Float[Tensor, "b n 4"], scores: Float[Tensor, "b n"], labels: Int64[Tensor, "b n"], threshold: float
) -> Bool[Tensor, "b n"]:
    """Return which boxes of each image greedy NMS keeps.

    It keeps every box whose IoU with each kept box of the same label and a higher score is at most ``threshold``. Of
    two boxes with equal scores the first counts as the better one. Boxes with the score ``NO_CANDIDATE`` are left out.
    """
    if _is_plain:
        return _plain_nms_mask(boxes.float(), scores.float(), labels, threshold)
    return _nms_operator(boxes.float(), scores.float(), labels, threshold)


_is_plain = False


@contextlib.contextmanager
def plain_nms() -> Iterator[None]:
    """Compute NMS with torch's own operators inside the block, for graphs that run without this package."""
    global _is_plain
    before, _is_plain = _is_plain, True
    try:
        yield
    finally:
        _is_plain = before


def _plain_nms_mask(
    boxes: Float[Tensor, "b n 4"], scores: Float[Tensor, "b n"], labels: Int64[Tensor, "b n"], threshold: float
) -> Bool[Tensor, "b n"]:
    """Return which boxes greedy NMS keeps, by repetition: a box is kept if no kept better box suppresses it.

    The first ``k`` boxes are final after ``k`` repetitions, but mostly a few are enough for all.
    """
    ordered = scores.sort(dim=1, descending=True, stable=True)
    best, order = ordered.values > NO_CANDIDATE, ordered.indices
    boxes = boxes.gather(1, order[:, :, None].expand(-1, -1, 4))
    labels = labels.gather(1, order)
    ranks = torch.arange(scores.shape[1], device=scores.device)
    suppresses = pairwise_iou(boxes, boxes) > threshold  # [better, worse]
    suppresses &= (labels[:, :, None] == labels[:, None]) & (ranks[:, None] < ranks) & best[:, :, None]

    def is_changing(kept: Tensor, before: Tensor) -> Tensor:
        return (kept != before).any()

    def repeat(kept: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        return best & ~(suppresses & kept[:, :, None]).any(dim=1), kept.clone()

    if torch.compiler.is_exporting():
        kept, _ = while_loop(is_changing, repeat, (best, ~best))
    else:
        kept, before = best, ~best
        while is_changing(kept, before):
            kept, before = repeat(kept, before)
    return torch.zeros_like(kept).scatter(1, order, kept)


@torch.library.custom_op(
    "vertebra::nms_mask",
    mutates_args=(),
    schema="(Tensor boxes, Tensor scores, Tensor labels, float threshold) -> Tensor",
)
def _nms_operator(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    if boxes.device.type == "cuda" and _has_triton():
        from .nms_kernel import nms_mask_of_batch  # triton is imported only where there is a GPU

        return nms_mask_of_batch(boxes, scores, labels, threshold)
    images = zip(boxes, scores, labels, strict=True)
    return torch.stack([_nms_of_image(*image, threshold) for image in images])


@_nms_operator.register_fake
def _(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def _nms_of_image(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Return which boxes of one image NMS keeps. It takes quadratic time, so each label is processed on its own."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    rows = (scores > NO_CANDIDATE).nonzero()[:, 0]
    rows = rows[labels[rows].argsort(stable=True)]
    counts = labels[rows].unique_consecutive(return_counts=True)[1]
    for group in rows.split(counts.tolist()):
        kept[group[nms(boxes[group], scores[group], threshold)]] = True
    return kept


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
