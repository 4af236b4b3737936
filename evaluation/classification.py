"""Classes of whole images: their results, and how often they are right."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from ..formats.checks import KnownIds, Problem, id_problem
from ..formats.results import GROUND_TRUTH, ResultError, missing_field_problem
from ..structures import Classification, is_number
from .scores import Scores

TOPS = {"top1": 1, "top5": 5}


def to_class_results(classification: Classification, image_id: int | str) -> list[dict[str, Any]]:
    """Return the result of one image: labels, best first, and their scores."""
    labels, scores = classification.labels.tolist(), classification.scores.tolist()
    return [{"image_id": image_id, "labels": labels, "scores": scores}]


def evaluate_classification(
    ground_truth: Mapping[Any, int], results: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> Scores:
    """Return the accuracy of results against the label of every image; an image without a result is a miss.

    ``top5`` is None where results name fewer classes than it looks at. ResultError for a bad result.
    """
    _check_results(results, ground_truth, len(class_names))
    predicted = {result["image_id"]: result["labels"] for result in results}
    shortest = min((len(labels) for labels in predicted.values()), default=len(class_names))
    labels = np.array(list(ground_truth.values()), np.int64)
    right = {
        name: np.array([label in predicted.get(image_id, [])[:top] for image_id, label in ground_truth.items()], bool)
        for name, top in TOPS.items()
    }
    return Scores(
        {
            name: _fraction(right[name]) if shortest >= min(top, len(class_names)) else None
            for name, top in TOPS.items()
        },
        _by_class(right["top1"], labels, class_names),
        {"images": len(ground_truth), "images_without_result": len(ground_truth.keys() - predicted.keys())},
    )


def _by_class(
    right: Bool[ndarray, " n"], labels: Int64[ndarray, " n"], class_names: Sequence[str]
) -> dict[str, float | None]:
    """Return the fraction of the images of each class that were taken for it."""
    return {name: _fraction(right[labels == label]) for label, name in enumerate(class_names)}


def _fraction(right: Bool[ndarray, " n"]) -> float | None:
    return float(right.mean()) if right.size else None


def _check_results(results: Sequence[dict[str, Any]], ground_truth: Mapping[Any, int], num_classes: int) -> None:
    """ResultError naming the image and index of the first result that cannot be scored."""
    image_ids = KnownIds.of(ground_truth, GROUND_TRUTH)
    seen: set[int | str] = set()
    for index, result in enumerate(results):
        problem = _result_problem(result, image_ids, num_classes)
        if problem is None and result["image_id"] in seen:
            problem = Problem("duplicate-result", "is the second of its image")
        if problem is not None:
            raise ResultError.of(index, result, problem)
        seen.add(result["image_id"])


def _result_problem(result: dict[str, Any], image_ids: KnownIds, num_classes: int) -> Problem | None:
    """Return what is wrong with one result."""
    problem = missing_field_problem(result, "image_id", "labels", "scores")
    if problem is not None:
        return problem
    return (
        id_problem("image", result["image_id"], image_ids)
        or _labels_problem(result["labels"], num_classes)
        or _scores_problem(result["scores"], len(result["labels"]))
    )


def _labels_problem(labels: Any, num_classes: int) -> Problem | None:
    if not isinstance(labels, list) or not labels or not all(type(label) is int for label in labels):
        return Problem("bad-label", f"has the labels {labels!r:.80}, which are not a list of whole numbers")
    if not set(labels) <= set(range(num_classes)) or len(set(labels)) < len(labels):
        return Problem("bad-label", f"has the labels {labels!r:.80}, which are not in 0..{num_classes - 1}, each once")
    return None


def _scores_problem(scores: Any, count: int) -> Problem | None:
    if not isinstance(scores, list) or not all(is_number(score) and math.isfinite(score) for score in scores):
        return Problem("bad-score", f"has the scores {scores!r:.80}, which are not a list of finite numbers")
    if len(scores) != count or scores != sorted(scores, reverse=True):
        return Problem("bad-score", f"has the scores {scores!r:.80}, which are not one per label, best first")
    return None
