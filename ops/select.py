"""Selection of a fixed number of detections per image, best first, from the scored boxes of a head.

A rejected box keeps its row and gets the score ``NO_CANDIDATE``, which sorts last, so that it cannot suppress a
candidate; in the result its row is padding. Only :func:`trim_padding` makes shapes depend on values.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from ..structures import Detections
from .device import allows_dynamic_shapes
from .nms import NO_CANDIDATE, nms_mask


class PaddedDetections(NamedTuple):
    """Detections, best first, padded to the same number per image: the last rows, where ``valid`` is False."""

    boxes: Float[Tensor, "b d 4"]
    labels: Int64[Tensor, "b d"]
    scores: Float[Tensor, "b d"]
    valid: Bool[Tensor, "b d"]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "PaddedDetections":
        """Return the detections whose values :meth:`tensors` returned."""
        scores, count = tensors["scores"], tensors["count"]
        valid = torch.arange(scores.shape[1], device=count.device) < count[:, None]
        return cls(tensors["boxes"], tensors["labels"], scores, valid)

    def tensors(self) -> dict[str, Tensor]:
        """Return the boxes, labels (-1 for padding) and scores, and the number of detections per image, ``count``."""
        labels, count = torch.where(self.valid, self.labels, -1), self.valid.sum(dim=1)
        return {"boxes": self.boxes, "labels": labels, "scores": self.scores, "count": count}

    def unpad(self) -> list[Detections]:
        """Return the detections of each image without the padding; this reads one tensor from the device."""
        return [
            Detections(boxes[:count], labels[:count], scores[:count])
            for boxes, labels, scores, count in zip(*self[:3], self.valid.sum(dim=1).tolist(), strict=True)
        ]


Padded = TypeVar("Padded", bound=tuple[Any, ...])


def trim_padding(rows: Padded, at_least: int = 0) -> Padded:
    """Remove the last rows that are padding in all images, where shapes may be dynamic.

    ``rows`` is a named tuple of tensors (b r ...), one of which is ``valid``; ``at_least`` rows remain.
    """
    valid: Tensor = rows.valid  # pyright: ignore[reportAttributeAccessIssue]
    if not allows_dynamic_shapes(valid.device) or not valid.numel():
        return rows
    count = max(at_least, int((valid * torch.arange(1, valid.shape[1] + 1)).max()))
    return type(rows)(*(column[:, :count] for column in rows))


def suppress(
    boxes: Float[Tensor, "b n 4"],
    scores: Float[Tensor, "b n"],
    threshold: float,
    labels: Int64[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b n"]:
    """Apply NMS to each image and set the scores of suppressed boxes to ``NO_CANDIDATE``.

    With ``labels``, a box suppresses only boxes of the same label.
    """
    if labels is None:
        labels = torch.zeros_like(scores, dtype=torch.int64)
    return scores.masked_fill(~nms_mask(boxes, scores, labels, threshold), NO_CANDIDATE)


def suppress_levels(
    boxes: Sequence[Float[Tensor, "b _ 4"]], scores: Sequence[Float[Tensor, "b _"]], threshold: float
) -> tuple[Float[Tensor, "b n 4"], Float[Tensor, "b n"]]:
    """Apply NMS within each level of each image; return the boxes of all levels, and their scores as ``suppress`` does.

    All levels are padded to the same number of boxes, so that there is a single call of NMS.
    """
    count = max(level.shape[1] for level in scores)
    padded_boxes = torch.stack([F.pad(level, (0, 0, 0, count - level.shape[1])) for level in boxes], dim=1)
    padded_scores = torch.stack(
        [F.pad(level, (0, count - level.shape[1]), value=NO_CANDIDATE) for level in scores], dim=1
    )
    remaining = suppress(padded_boxes.flatten(0, 1), padded_scores.flatten(0, 1), threshold)
    return padded_boxes.flatten(1, 2), remaining.view(len(padded_scores), -1)


def gather_rows(rows: Shaped[Tensor, "b n *d"], indices: Int64[Tensor, "b k"]) -> Shaped[Tensor, "b k *d"]:
    """Gather the rows of each image at its indices."""
    index = indices.view(*indices.shape, *[1] * (rows.ndim - 2))
    return rows.gather(1, index.expand(-1, -1, *rows.shape[2:]))


class TopScores(NamedTuple):
    """The best scores of each image in descending order, and the row of each score."""

    scores: Float[Tensor, "b k"]
    indices: Int64[Tensor, "b k"]


def top_scores(scores: Float[Tensor, "b n"], count: int) -> TopScores:
    """Return the ``count`` best scores of each image, or all scores if there are fewer.

    In an exported graph there are always ``count``: missing ones are ``NO_CANDIDATE``, with the index of the last.
    """
    if torch.compiler.is_exporting():  # otherwise the number would depend on the size of the image, up to some size
        length = scores.shape[1]
        best = TopScores(*F.pad(scores, (0, count), value=NO_CANDIDATE).topk(count))
        return best._replace(indices=best.indices.clamp(max=length - 1))
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
    """Return the ``count`` best detections of each image after NMS within each class.

    Where shapes may be dynamic, there are as many rows as the image with the most detections needs.
    """
    candidates = scores > NO_CANDIDATE
    boxes = torch.where(candidates[:, :, None], boxes, 0)  # rejected boxes may be NaN
    best = top_scores(suppress(boxes, scores, nms_threshold, labels), count)
    valid = best.scores > NO_CANDIDATE
    detections = PaddedDetections(
        gather_rows(boxes, best.indices) * valid[:, :, None],
        labels.gather(1, best.indices),
        torch.where(valid, best.scores, 0),
        valid,
    )
    return trim_padding(detections)
