"""Selection: from the scored boxes of a head to a fixed number of detections per image, best first.

Shapes never depend on values. What is no candidate keeps its row and has the score ``NO_CANDIDATE``, which sorts last,
so it suppresses no candidate; in the result such rows are padding.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torchvision.ops import nms

from ..structures import Detections
from .device import can_count

NO_CANDIDATE = -torch.inf


class PaddedDetections(NamedTuple):
    """A fixed number of detections per image, best first; where ``valid`` is False the row is padding."""

    boxes: Float[Tensor, "b d 4"]
    labels: Int64[Tensor, "b d"]
    scores: Float[Tensor, "b d"]
    valid: Bool[Tensor, "b d"]

    def trim(self) -> "PaddedDetections":
        """Return the rows up to the image with the most detections; this reads that number from the device."""
        count = int(self.valid.sum(dim=1).max())
        return PaddedDetections(
            self.boxes[:, :count], self.labels[:, :count], self.scores[:, :count], self.valid[:, :count]
        )

    def unpad(self) -> list[Detections]:
        """Return the detections of each image without the padding."""
        return [
            Detections(boxes[valid], labels[valid], scores[valid])
            for boxes, labels, scores, valid in zip(*self, strict=True)
        ]


def nms_mask(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], threshold: float) -> Bool[Tensor, " n"]:
    """Return which boxes greedy suppression keeps: those that overlap no better one by more than ``threshold`` IoU."""
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    kept[nms(boxes, scores, threshold)] = True
    return kept


def class_nms_mask(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int64[Tensor, " n"], threshold: float
) -> Bool[Tensor, " n"]:
    """Return which boxes suppression within each label keeps; the boxes are finite and may lie anywhere.

    Labels are moved apart by more than the extent of all boxes, so that boxes of two labels never overlap.
    """
    if not len(boxes):
        return torch.zeros_like(labels, dtype=torch.bool)
    if boxes.device.type == "mps":  # which has no float64
        return class_nms_mask(boxes.cpu(), scores.cpu(), labels.cpu(), threshold).to(boxes.device)
    # In float64 the move costs no precision: with 80 labels of 1333 px float32 would have steps of 1/128 px.
    moved = boxes.double()
    extent = moved.amax() - moved.amin() + 1
    return nms_mask(moved + (labels * extent)[:, None], scores.double(), threshold)


def suppress(
    boxes: Float[Tensor, "b n 4"],
    scores: Float[Tensor, "b n"],
    threshold: float,
    labels: Int64[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b n"]:
    """Return the scores, with those of suppressed boxes set to ``NO_CANDIDATE``.

    With ``labels``, boxes suppress others of their label only.
    """
    kept = [
        _suppress_image(boxes[image], scores[image], threshold, None if labels is None else labels[image])
        for image in range(len(boxes))
    ]
    return scores.masked_fill(~torch.stack(kept), NO_CANDIDATE)


def _suppress_image(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], threshold: float, labels: Int64[Tensor, " n"] | None
) -> Bool[Tensor, " n"]:
    """Return which boxes of one image suppression keeps."""
    if can_count(boxes.device):  # each box costs as many comparisons as there are boxes: leave out what is no candidate
        rows = (scores > NO_CANDIDATE).nonzero()[:, 0]
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept[rows] = _nms_of_labels(boxes[rows], scores[rows], threshold, None if labels is None else labels[rows])
        return kept
    return _nms_of_labels(boxes, scores, threshold, labels)


def _nms_of_labels(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], threshold: float, labels: Int64[Tensor, " n"] | None
) -> Bool[Tensor, " n"]:
    if labels is None:
        return nms_mask(boxes, scores, threshold)
    return class_nms_mask(boxes, scores, labels, threshold)


def gather_rows(rows: Shaped[Tensor, "b n c"], indices: Int64[Tensor, "b k"]) -> Shaped[Tensor, "b k c"]:
    """Return the rows of each image at the indices of that image."""
    return rows.gather(1, indices[:, :, None].expand(-1, -1, rows.shape[2]))


class TopScores(NamedTuple):
    """The best scores of each image in descending order, and the row that each is from."""

    scores: Float[Tensor, "b k"]
    indices: Int64[Tensor, "b k"]


def top_scores(scores: Float[Tensor, "b n"], count: int) -> TopScores:
    """Return the ``count`` best scores of each image, or all where there are fewer."""
    return TopScores(*scores.topk(min(count, scores.shape[1])))


class TopClassScores(NamedTuple):
    """The best (reference, class) pairs of each image in descending order of their scores."""

    scores: Float[Tensor, "b k"]
    indices: Int64[Tensor, "b k"]
    """The reference of each pair."""
    labels: Int64[Tensor, "b k"]


def top_class_scores(scores: Float[Tensor, "b n c"], count: int) -> TopClassScores:
    """Return the ``count`` best pairs of a reference and a class, or all where there are fewer."""
    best = top_scores(scores.flatten(1), count)
    num_classes = scores.shape[2]
    return TopClassScores(best.scores, best.indices // num_classes, best.indices % num_classes)


def select_detections(
    boxes: Float[Tensor, "b n 4"],
    scores: Float[Tensor, "b n"],
    labels: Int64[Tensor, "b n"],
    nms_threshold: float,
    count: int,
) -> PaddedDetections:
    """Return the ``count`` best detections of each image after suppression within each class."""
    candidates = scores > NO_CANDIDATE
    boxes = torch.where(candidates[:, :, None], boxes, 0)  # others may hold NaN, and must not widen the extent
    best = top_scores(suppress(boxes, scores, nms_threshold, labels), count)
    valid = best.scores > NO_CANDIDATE
    return PaddedDetections(
        gather_rows(boxes, best.indices) * valid[:, :, None],
        labels.gather(1, best.indices),
        torch.where(valid, best.scores, 0),
        valid,
    )
