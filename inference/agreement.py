"""Comparison of two models that should predict the same, by the largest differences on a few images."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..models import Model
from ..ops import label_map, pairwise_iou
from ..structures import (
    Classification,
    Config,
    Detections,
    Embedding,
    Features,
    Images,
    NonNegative,
    PanopticParts,
    PanopticSegmentation,
    SemanticLogits,
    UnitInterval,
)

MIN_SCORE = 0.3
"""Detections with a lower score are not looked for in the predictions of the other model."""
MIN_OVERLAP = 0.5
"""The lowest IoU at which two detections of a class can be the same object: below it NMS would have kept both."""


class AgreementBounds(Config):
    """The largest differences that are accepted between an optimized model and the plain one."""

    features: NonNegative
    """Difference of a value of a feature map, relative to the largest value of the map."""
    scores: UnitInterval
    """Difference of the scores of a detection or class; for an embedding, 1 minus the cosine of the vectors."""
    missing: UnitInterval
    """Fraction of the detections that only one of the models has. Where boxes overlap, NMS can turn a tiny difference
    into another detection."""
    boxes: UnitInterval
    """1 minus the IoU of the boxes of a detection."""
    masks: UnitInterval
    """Fraction of the cells of a detection's mask that are on the object in only one of the models."""
    keypoints: UnitInterval
    """Fraction of a detection's keypoints that lie apart by more than a hundredth of the longer side of its box."""
    pixels: UnitInterval
    """Fraction of the pixels of an image that have different classes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """The largest differences between the predictions of two models, in the units of :class:`AgreementBounds`."""

    features: float = 0.0
    scores: float = 0.0
    boxes: float = 0.0
    masks: float = 0.0
    keypoints: float = 0.0
    pixels: float = 0.0
    box_pixels: float = 0.0
    """The largest difference of a coordinate of a box in pixels; it has no bound, since it grows with the box."""
    detections: int = 0
    """The number of detections of either model that were looked for in the predictions of the other."""
    unmatched: int = 0
    """The number of these that were not found."""

    @property
    def missing(self) -> float:
        """The fraction of the detections that only one of the models has."""
        return self.unmatched / max(self.detections, 1)

    def merge(self, other: "Agreement") -> "Agreement":
        """Return the larger of each difference, and the sums of the numbers of detections."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in ("detections", "unmatched")}
        names = [field.name for field in dataclasses.fields(self) if field.name not in counts]
        values = {name: float(np.maximum(getattr(self, name), getattr(other, name))) for name in names}  # keeps NaN
        return Agreement(**values, **counts)

    def describe(self) -> str:
        """Return the differences as one line."""
        parts = [f"feature maps {self.features:.2g}"]
        if self.scores:
            parts.append(f"scores {self.scores:.2g}")
        if self.detections:
            parts += [f"boxes {self.box_pixels:.2g} px (1 - IoU {self.boxes:.2g})", f"masks {self.masks:.2g}"]
            parts.append(f"{self.unmatched} of {self.detections} detections without a counterpart")
        if self.pixels:
            parts.append(f"{self.pixels:.2%} of the pixels")
        return ", ".join(parts)

    def violations(self, bounds: AgreementBounds) -> list[str]:
        """Return a line for each difference that exceeds its bound, such as ``scores: 0.4 (at most 0.1)``."""
        return [
            f"{name}: {getattr(self, name):.2g} (at most {bound:g})"
            for name, bound in bounds
            if not getattr(self, name) <= bound  # also if it is NaN
        ]


class Outputs(NamedTuple):
    """The feature maps and the predictions of a batch of images."""

    features: Features
    predictions: list[Any]


@torch.no_grad()
def compute_outputs(model: Model, batches: Sequence[Images]) -> list[Outputs]:
    """Compute the feature maps and the predictions of each batch of images."""
    return [
        Outputs(model.features(images), model.predict(images))
        for images in (batch.to(model.device) for batch in batches)
    ]


def compare_outputs(first: Sequence[Outputs], second: Sequence[Outputs]) -> Agreement:
    """Return the largest differences between the outputs of two models for the same batches of images."""
    agreement = Agreement()
    for one, other in zip(first, second, strict=True):
        for level, values in one.features.items():
            agreement = agreement.merge(Agreement(features=_relative_difference(values, other.features[level])))
        for prediction, counterpart in zip(one.predictions, other.predictions, strict=True):
            agreement = agreement.merge(compare_predictions(prediction, counterpart))
    return agreement


def compare_predictions(first: Any, second: Any, min_score: float | None = None) -> Agreement:
    """Return the differences between two predictions of an image; predictions of a user's own type are not compared.

    Detections with a lower score than ``min_score`` (None: ``MIN_SCORE``) are not looked for in the other prediction.
    """
    if isinstance(first, Mapping):
        agreement = Agreement()
        for name, value in first.items():
            agreement = agreement.merge(compare_predictions(value, second[name], min_score))
        return agreement
    if isinstance(first, Detections):
        return _compare_detections(first, second, MIN_SCORE if min_score is None else min_score)
    if isinstance(first, PanopticParts):
        parts = compare_predictions(first.detections, second.detections, min_score)
        return parts.merge(compare_predictions(first.semantic, second.semantic))
    if isinstance(first, SemanticLogits):
        differing = label_map(first, first.size) != label_map(second, second.size)
        return Agreement(pixels=differing.float().mean().item())
    if isinstance(first, Tensor) and first.is_floating_point():  # a feature map
        return Agreement(features=_relative_difference(first, second))
    if isinstance(first, Tensor):  # a map of classes
        return Agreement(pixels=(first != second).float().mean().item())
    if isinstance(first, PanopticSegmentation):
        return compare_predictions(first.label_map(), second.label_map())
    if isinstance(first, Classification):
        scores = dict(zip(second.labels.tolist(), second.scores.tolist(), strict=True))
        return Agreement(scores=abs(first.scores[0].item() - scores.get(int(first.labels[0]), 0.0)))
    if isinstance(first, Embedding):
        return Agreement(scores=max(0.0, 1 - torch.dot(first.vector, second.vector).item()))
    return Agreement()


def _relative_difference(first: Tensor, second: Tensor) -> float:
    largest = first.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return ((first.float() - second.float()).abs().max() / largest).item()


def _compare_detections(first: Detections, second: Detections, min_score: float) -> Agreement:
    """Look for each detection of either model that scores ``min_score`` in the predictions of the other."""
    agreement = Agreement()
    for detections, others in ((first, second), (second, first)):
        confident = detections[detections.scores >= min_score]
        pairs = _match(confident, others)
        counts = Agreement(detections=len(confident), unmatched=len(confident) - len(pairs))
        agreement = agreement.merge(counts)
        for row, other in pairs:
            agreement = agreement.merge(_compare_pair(confident[row], others[other]))
    return agreement


def _compare_pair(one: Detections, other: Detections) -> Agreement:
    """Compare two detections of the same object."""
    masks = 0.0
    if one.masks is not None and other.masks is not None:
        masks = ((one.masks.grids >= 0.5) != (other.masks.grids >= 0.5)).float().mean().item()
    keypoints = 0.0
    if one.keypoints is not None and other.keypoints is not None:
        distances = (one.keypoints - other.keypoints)[0, :, :2].norm(dim=1)
        keypoints = (distances > 0.01 * (one.boxes[0, 2:] - one.boxes[0, :2]).max()).float().mean().item()
    return Agreement(
        scores=(one.scores - other.scores).abs().item(),
        boxes=1 - pairwise_iou(one.boxes, other.boxes).item(),
        masks=masks,
        keypoints=keypoints,
        box_pixels=(one.boxes - other.boxes).abs().max().item(),
    )


def _match(first: Detections, second: Detections) -> list[tuple[int, int]]:
    """Match detections of the same class one to one, those with the highest IoU first; return pairs of rows."""
    overlaps = pairwise_iou(first.boxes, second.boxes)
    overlaps = overlaps.masked_fill(first.labels[:, None] != second.labels[None], 0.0)
    pairs = []
    for _ in range(min(overlaps.shape)):
        row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
        if overlaps[row, column] < MIN_OVERLAP:
            break
        pairs.append((row, column))
        overlaps[row], overlaps[:, column] = 0.0, 0.0
    return pairs
