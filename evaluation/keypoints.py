"""Object keypoint similarity (OKS): its constants and inputs, and the fraction of each keypoint that is found.

The similarity of a predicted keypoint at a distance d from the true one is exp(-d^2 / (2 s^2 k^2)), where s^2 is the
area of the object and k is twice the keypoint's sigma (cocodataset.org/#keypoints-eval). OKS is the mean similarity of
the labeled keypoints of an object; COCO's keypoint metrics use it in place of IoU.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ..formats.checks import keypoint_names_problem
from ..structures import COCO_KEYPOINTS, DataError

COCO_SIGMAS: Mapping[str, float] = dict(
    zip(
        COCO_KEYPOINTS,
        (
            0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
            0.089, 0.089,
        ),
        strict=True,
    )
)  # fmt: skip
"""The sigma of each COCO keypoint: the standard deviation of its annotations relative to the object's size."""
DEFAULT_SIGMA = sum(COCO_SIGMAS.values()) / len(COCO_SIGMAS)
"""The sigma of a keypoint that COCO does not have: the mean of COCO's, 0.067."""
LIMIT = 20
"""The maximum number of detections that are scored per image and class."""
MIN_OKS = 0.5
"""A detection and an object with a lower OKS are not matched."""
MIN_SIMILARITY = 0.5
"""A predicted keypoint with a lower similarity is a miss (1707.05388 section 3.1)."""

Entry = Mapping[str, Any]
Groups = Mapping[tuple[int, int], Sequence[Entry]]
"""Annotations or detections by (image id, category id)."""


def keypoint_sigmas(names: Sequence[str], given: Mapping[str, float]) -> Float64[ndarray, " k"]:
    """Return the sigma of each keypoint: the ``given`` one, else COCO's, else ``DEFAULT_SIGMA``.

    Raises DataError if ``given`` has a keypoint that is not in ``names``.
    """
    if unknown := sorted(given.keys() - set(names)):
        fix = f"correct evaluation.keypoint_sigmas; the keypoints are {', '.join(names)}"
        raise DataError(f"there is no keypoint {unknown[0]!r} in the ground truth", fix, case="unknown-keypoint")
    return np.array([given.get(name, COCO_SIGMAS.get(name, DEFAULT_SIGMA)) for name in names])


def keypoint_names(categories: Sequence[Entry]) -> tuple[str, ...]:
    """Return the keypoint names of the categories.

    Raises DataError if no category has keypoints, if they differ, or if they are not a list of unique names.
    """
    declared = [category["keypoints"] for category in categories if category.get("keypoints")]
    for names in declared:
        if (problem := keypoint_names_problem(names)) is not None:
            raise DataError(problem.what, "correct the categories", case=problem.case)
    if not declared or any(names != declared[0] for names in declared):
        what = "categories have different keypoints" if declared else "no category of the ground truth has keypoints"
        raise DataError(what, "give annotations with the same keypoints for every category", case="no-keypoints")
    return tuple(declared[0])


def predicted_keypoints(result: Entry) -> dict[str, Any]:
    """Return the keypoints of a result, and their bounding box, whose area decides its area range."""
    points = np.reshape(result["keypoints"], (-1, 3))[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    width, height = (high - low).tolist()
    return {"keypoints": result["keypoints"], "bbox": [*low.tolist(), width, height], "area": width * height}


def keypoint_recall(
    truths: Groups, detections: Groups, names: Sequence[str], sigmas: Float64[ndarray, " k"]
) -> dict[str, float | None]:
    """Return the fraction of labeled keypoints that are found, by name; None for a name without labeled keypoints.

    A keypoint is found if its object is matched to a detection, and its similarity to the predicted keypoint is at
    least ``MIN_SIMILARITY``. Within an image and class, each detection, best first, is matched to the unmatched object
    with the highest OKS, if this is at least ``MIN_OKS``.
    """
    labeled, found = np.zeros(len(names)), np.zeros(len(names))
    for key, annotations in truths.items():
        objects = [truth for truth in annotations if truth["num_keypoints"] and not truth["iscrowd"]]
        if not objects:
            continue
        true = np.array([truth["keypoints"] for truth in objects], float).reshape(len(objects), -1, 3)
        areas = np.array([truth["area"] for truth in objects], float)
        labeled += (true[..., 2] > 0).sum(axis=0)
        free = np.ones(len(objects), bool)
        for detection in sorted(detections.get(key, ()), key=lambda entry: -entry["score"])[:LIMIT]:
            predicted = np.reshape(np.array(detection["keypoints"], float), (-1, 3))
            similarity = _similarity(predicted, true, areas, sigmas)
            oks = np.where(free, similarity.sum(axis=1) / (true[..., 2] > 0).sum(axis=1), 0)
            best = int(oks.argmax())
            if oks[best] >= MIN_OKS:
                free[best] = False
                found += similarity[best] >= MIN_SIMILARITY
    return {name: float(found[index] / labeled[index]) if labeled[index] else None for index, name in enumerate(names)}


def _similarity(
    predicted: Float64[ndarray, "k 3"],
    true: Float64[ndarray, "n k 3"],
    areas: Float64[ndarray, " n"],
    sigmas: Float64[ndarray, " k"],
) -> Float64[ndarray, "n k"]:
    """Return the similarities of a detection's keypoints to those of each object; 0 for unlabeled keypoints."""
    squared = ((predicted[:, :2] - true[..., :2]) ** 2).sum(axis=2)
    errors = squared / (2 * sigmas) ** 2 / (areas[:, None] + np.spacing(1)) / 2
    return np.where(true[..., 2] > 0, np.exp(-errors), 0)
