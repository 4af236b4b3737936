"""Classes of whole images: their results, and how often they are right."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from ..structures import Classification, is_number
from .checks import Fault, ResultError, id_problem, missing_field_problem
from .scores import Scores

TOPS = {"top1": 1, "top5": 5}


def to_class_results(classification: Classification, image_id: int | str) -> list[dict[str, Any]]:
    """The result of one image: labels, best first, and their scores."""
    labels, scores = classification.labels.tolist(), classification.scores.tolist()
    return [{"image_id": image_id, "labels": labels, "scores": scores}]


def evaluate_classification(
    truth: Mapping[Any, int], results: Sequence[dict[str, Any]], class_names: Sequence[str]
) -> Scores:
    """Accuracy of results against the label of every image; an image without a result is a miss.

    ``top5`` is None where results name fewer classes than it looks at. ResultError for a bad result.
    """
    _check_results(results, truth, len(class_names))
    found = {result["image_id"]: result["labels"] for result in results}
    shortest = min((len(labels) for labels in found.values()), default=len(class_names))
    labels = np.array(list(truth.values()), np.int64)
    right = {
        name: np.array([label in found.get(image_id, [])[:top] for image_id, label in truth.items()], bool)
        for name, top in TOPS.items()
    }
    return Scores(
        {name: _share(right[name]) if shortest >= min(top, len(class_names)) else None for name, top in TOPS.items()},
        _by_class(right["top1"], labels, class_names),
        {"images": len(truth), "images_without_result": len(truth.keys() - found.keys())},
    )


def _by_class(
    right: Bool[ndarray, " n"], labels: Int64[ndarray, " n"], class_names: Sequence[str]
) -> dict[str, float | None]:
    """The share of the images of each class that were taken for it."""
    return {name: _share(right[labels == label]) for label, name in enumerate(class_names)}


def _share(right: Bool[ndarray, " n"]) -> float | None:
    return float(right.mean()) if right.size else None


def _check_results(results: Sequence[dict[str, Any]], truth: Mapping[Any, int], num_classes: int) -> None:
    """ResultError naming the image and index of the first result that cannot be scored."""
    seen: set[int | str] = set()
    for index, result in enumerate(results):
        fault = _result_fault(result, truth, num_classes)
        if fault is None and result["image_id"] in seen:
            fault = "duplicate-result", "is the second of its image"
        if fault is not None:
            raise ResultError.of(index, result, fault)
        seen.add(result["image_id"])


def _result_fault(result: dict[str, Any], truth: Mapping[Any, int], num_classes: int) -> Fault | None:
    """What is wrong with one result, if anything."""
    return (
        missing_field_problem(result, "image_id", "labels", "scores")
        or id_problem("image", result["image_id"], truth.keys())
        or _labels_fault(result["labels"], num_classes)
        or _scores_fault(result["scores"], len(result["labels"]))
    )


def _labels_fault(labels: Any, num_classes: int) -> Fault | None:
    if not isinstance(labels, list) or not labels or not all(type(label) is int for label in labels):
        return "bad-label", f"has the labels {labels!r:.80}, which are not a list of whole numbers"
    if not set(labels) <= set(range(num_classes)) or len(set(labels)) < len(labels):
        return "bad-label", f"has the labels {labels!r:.80}, which are not in 0..{num_classes - 1}, each once"
    return None


def _scores_fault(scores: Any, count: int) -> Fault | None:
    if not isinstance(scores, list) or not all(is_number(score) and math.isfinite(score) for score in scores):
        return "bad-score", f"has the scores {scores!r:.80}, which are not a list of finite numbers"
    if len(scores) != count or scores != sorted(scores, reverse=True):
        return "bad-score", f"has the scores {scores!r:.80}, which are not one per label, best first"
    return None
