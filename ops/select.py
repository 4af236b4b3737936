"""Selection of a fixed number of detections per image, best first, from the scored boxes of a head.

Shapes never depend on values. A rejected box keeps its row and gets the score ``NO_CANDIDATE``, which sorts last, so
that it cannot suppress a candidate; in the result its row is padding.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor
from torchvision.ops import nms

from ..structures import Detections
from .device import allows_dynamic_shapes

NO_CANDIDATE = -torch.inf


class PaddedDetections(NamedTuple):
    """A fixed number of detections per image, best first; rows where ``valid`` is False are padding."""

    boxes: Float[Tensor, "b d 4"]
    labels: Int64[Tensor, "b d"]
    scores: Float[Tensor, "b d"]
    valid: Bool[Tensor, "b d"]

    def trim(self) -> "PaddedDetections":
        """Remove the rows that are padding in all images; this synchronizes with the device."""
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
    """Return which boxes greedy NMS keeps: every box whose IoU with each kept, better box is at most ``threshold``."""
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    kept[nms(boxes, scores, threshold)] = True
    return kept


def class_nms_mask(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], labels: Int64[Tensor, " n"], threshold: float
) -> Bool[Tensor, " n"]:
    """Return which boxes NMS within each label keeps; the boxes must be finite.

    The boxes are shifted by a multiple of their common extent per label, so that boxes of two labels never overlap.
    """
    if not len(boxes):
        return torch.zeros_like(labels, dtype=torch.bool)
    if boxes.device.type == "mps":  # mps has no float64
        return class_nms_mask(boxes.cpu(), scores.cpu(), labels.cpu(), threshold).to(boxes.device)
    # In float64 the shift costs no precision; with 80 labels of 1333 px, float32 would round to 1/128 px.
    boxes = boxes.double()
    extent = boxes.amax() - boxes.amin() + 1
    return nms_mask(boxes + (labels * extent)[:, None], scores.double(), threshold)


def suppress(
    boxes: Float[Tensor, "b n 4"],
    scores: Float[Tensor, "b n"],
    threshold: float,
    labels: Int64[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b n"]:
    """Apply NMS to each image and set the scores of suppressed boxes to ``NO_CANDIDATE``.

    With ``labels``, a box suppresses only boxes of the same label.
    """
    kept = [
        _suppress_image(boxes[image], scores[image], threshold, None if labels is None else labels[image])
        for image in range(len(boxes))
    ]
    return scores.masked_fill(~torch.stack(kept), NO_CANDIDATE)


def _suppress_image(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], threshold: float, labels: Int64[Tensor, " n"] | None
) -> Bool[Tensor, " n"]:
    """Return which boxes of one image NMS keeps."""
    if allows_dynamic_shapes(boxes.device):  # the cost of NMS is quadratic, so leave out rejected boxes
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
    """Gather the rows of each image at its indices."""
    return rows.gather(1, indices[:, :, None].expand(-1, -1, rows.shape[2]))


class TopScores(NamedTuple):
    """The best scores of each image in descending order, and the row of each score."""

    scores: Float[Tensor, "b k"]
    indices: Int64[Tensor, "b k"]


def top_scores(scores: Float[Tensor, "b n"], count: int) -> TopScores:
    """Return the ``count`` best scores of each image, or all scores if there are fewer."""
    return TopScores(*scores.topk(min(count, scores.shape[1])))


class TopClassScores(NamedTuple):
    """The best (reference, class) pairs of each image in descending order of their scores."""

    scores: Float[Tensor, "b k"]
    indices: Int64[Tensor, "b k"]
    """The index of the reference of each pair."""
    labels: Int64[Tensor, "b k"]
    """The class of each pair."""


def top_class_scores(scores: Float[Tensor, "b n c"], count: int) -> TopClassScores:
    """Return the ``count`` best (reference, class) pairs of each image, or all pairs if there are fewer."""
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
    """Return the ``count`` best detections of each image after NMS within each class."""
    candidates = scores > NO_CANDIDATE
    boxes = torch.where(candidates[:, :, None], boxes, 0)  # rejected boxes may be NaN or huge, see class_nms_mask
    best = top_scores(suppress(boxes, scores, nms_threshold, labels), count)
    valid = best.scores > NO_CANDIDATE
    return PaddedDetections(
        gather_rows(boxes, best.indices) * valid[:, :, None],
        labels.gather(1, best.indices),
        torch.where(valid, best.scores, 0),
        valid,
    )
