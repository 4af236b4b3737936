"""Image classification: results rows and accuracy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from ..formats.checks import Problem
from ..formats.results import check_image_results
from ..structures import Classification, is_number
from .scores import Scores

TOPS = {"top1": 1, "top5": 5}


def to_class_results(classification: Classification, image_id: int | str) -> list[dict[str, Any]]:
    """Return the results rows of one image: a single row with its labels, best first, and their scores."""
    labels, scores = classification.labels.tolist(), classification.scores.tolist()
    return [{"image_id": image_id, "labels": labels, "scores": scores}]


def evaluate_classification(
    ground_truth: Mapping[Any, int], results: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> Scores:
    """Return the top-1 and top-5 accuracy of results; ``ground_truth`` holds the label of every image by its id.

    An image without a result counts as wrong. ``top5`` is None if results have fewer than five labels. Raises
    ResultError for an invalid result.
    """
    _check_results(results, ground_truth, len(class_names))
    predicted = {result["image_id"]: result["labels"] for result in results}
    shortest = min((len(labels) for labels in predicted.values()), default=len(class_names))
    labels = np.array(list(ground_truth.values()), np.int64)
    correct = {
        name: np.array([label in predicted.get(image_id, [])[:top] for image_id, label in ground_truth.items()], bool)
        for name, top in TOPS.items()
    }
    return Scores(
        {
            name: _fraction(correct[name]) if shortest >= min(top, len(class_names)) else None
            for name, top in TOPS.items()
        },
        _by_class(correct["top1"], labels, class_names),
        {"images": len(ground_truth), "images_without_result": len(ground_truth.keys() - predicted.keys())},
    )


def _by_class(
    correct: Bool[ndarray, " n"], labels: Int64[ndarray, " n"], class_names: Sequence[str]
) -> dict[str, float | None]:
    """Return the accuracy on the images of each class; None for a class without images."""
    return {name: _fraction(correct[labels == label]) for label, name in enumerate(class_names)}


def _fraction(correct: Bool[ndarray, " n"]) -> float | None:
    return float(correct.mean()) if correct.size else None


def _check_results(results: Sequence[dict[str, Any]], ground_truth: Mapping[Any, int], num_classes: int) -> None:
    """Raise ResultError naming the image and the index of the first invalid result."""

    def problem(result: dict[str, Any]) -> Problem | None:
        labels, scores = result["labels"], result["scores"]
        return _labels_problem(labels, num_classes) or _scores_problem(scores, len(labels))

    check_image_results(results, ground_truth, ("labels", "scores"), problem)


def _labels_problem(labels: Any, num_classes: int) -> Problem | None:
    if not isinstance(labels, list) or not labels or not all(type(label) is int for label in labels):
        return Problem("bad-label", f"has the labels {labels!r:.80}, which are not a list of integers")
    if not set(labels) <= set(range(num_classes)) or len(set(labels)) < len(labels):
        return Problem("bad-label", f"has the labels {labels!r:.80}, which are not distinct in 0..{num_classes - 1}")
    return None


def _scores_problem(scores: Any, count: int) -> Problem | None:
    if not isinstance(scores, list) or not all(is_number(score) and math.isfinite(score) for score in scores):
        return Problem("bad-score", f"has the scores {scores!r:.80}, which are not a list of finite numbers")
    if len(scores) != count or scores != sorted(scores, reverse=True):
        return Problem("bad-score", f"has the scores {scores!r:.80}, which are not one per label, in falling order")
    return None
