"""The result of an evaluation of any task, and its formatting for a terminal or a log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SHOWN_CLASSES = 100
FALSE_ACCEPT_RATES = {f"TAR@1e-{power}": 10.0**-power for power in range(1, 7)}
"""The false accept rates at which verification is scored, by the name of the score (TAR: true accept rate)."""

DESCRIPTIONS = {
    "AP": "IoU 0.50:0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "area below 32 x 32",
    "APm": "area 32 x 32 to 96 x 96",
    "APl": "area above 96 x 96",
    "AR1": "1 detection per image and class",
    "AR10": "10 detections per image and class",
    "AR100": "100 detections per image and class",
    "AR": "IoU 0.50:0.95",
    "AR50": "IoU 0.50",
    "AR75": "IoU 0.75",
    "ARs": "area below 32 x 32",
    "ARm": "area 32 x 32 to 96 x 96",
    "ARl": "area above 96 x 96",
    "PQ": "mean over classes of SQ x RQ",
    "SQ": "mean IoU of matched segments",
    "RQ": "F1 score of segment detection",
    "top1": "the most likely class is correct",
    "top5": "one of the five most likely classes is correct",
    "recall@1": "the nearest image is of the same class",
    "recall@5": "one of the five nearest images is of the same class",
    "recall@10": "one of the ten nearest images is of the same class",
    "accuracy": "fraction of correct decisions on pairs, mean over folds",
    "accuracy_std": "standard deviation of the accuracy over folds",
    **{name: f"true accept rate at a false accept rate of {rate:g}" for name, rate in FALSE_ACCEPT_RATES.items()},
    "mIoU": "mean over classes of intersection over union",
    "pixel_accuracy": "fraction of correct pixels",
    "mean_accuracy": "mean over classes of the fraction of correct pixels",
    "frequency_weighted_iou": "IoU averaged with the classes' fractions of pixels",
}
"""Short descriptions of the metrics; a metric that is not listed is shown without a description."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of an evaluation by their usual names; None (null in JSON) for a metric without ground truth.

    ``per_class`` is the main metric, the first of ``summary``, for each class. ``counts`` holds the numbers of images
    and results, and of those that were ignored. ``per_keypoint`` is the fraction of labeled keypoints that were
    found, by name; it is empty if keypoints were not scored. ``objects`` is the number of objects of each class in the
    ground truth; it is empty if the task has none.
    """

    summary: dict[str, float | None]
    per_class: dict[str, float | None]
    counts: dict[str, int]
    per_keypoint: dict[str, float | None] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)


def format_scores(scores: Scores, kind: str = "metric") -> str:
    """Return tables of the summary, the main metric and the objects per class, and the counts, as text.

    ``-`` stands for None. ``kind`` is the heading of the first column, the name of what was scored. If there are more
    than 100 classes, the 100 with the lowest scores are shown.
    """
    tables: list[list[tuple[str, ...]]] = [[(kind, "score", "description")]]
    tables[0] += [(name, _number(value), _describe(name)) for name, value in scores.summary.items()]
    if scores.per_class:
        heading = ("class", next(iter(scores.summary), "score"))
        classes = [(name, _number(value)) for name, value in _worst(scores.per_class).items()]
        if scores.objects:
            heading = (*heading, "objects")
            classes = [(*row, str(scores.objects[row[0]]).rjust(len("objects"))) for row in classes]
        tables.append([heading, *classes])
    if scores.per_keypoint:
        found = [(name, _number(value)) for name, value in scores.per_keypoint.items()]
        tables.append([("keypoint", "found"), *found])
    if scores.counts:
        counts = [(name.replace("_", " "), str(count)) for name, count in scores.counts.items()]
        tables.append([("count of", "number"), *counts])
    return "\n\n".join(map(_align, tables))


def _describe(metric: str) -> str:
    """Return the description of a metric; empty if it has none."""
    limit = metric.removeprefix("AR")
    if metric not in DESCRIPTIONS and limit != metric and limit.isdigit():  # another maximum than COCO's
        return f"{limit} detections per image and class"
    return DESCRIPTIONS.get(metric, "")


def _worst(per_class: Mapping[str, float | None]) -> Mapping[str, float | None]:
    """Return all classes, or the ``SHOWN_CLASSES`` with the lowest scores if there are more."""
    if len(per_class) <= SHOWN_CLASSES:
        return per_class
    measured = {name: value for name, value in per_class.items() if value is not None}
    return dict(sorted(measured.items(), key=lambda pair: pair[1])[:SHOWN_CLASSES])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _align(rows: list[tuple[str, ...]]) -> str:
    """Return rows as lines of text with left-aligned names, right-aligned numbers, and descriptions."""
    name_width, number_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        "  ".join([row[0].ljust(name_width), row[1].rjust(number_width), *row[2:]]).rstrip() for row in rows
    )


def scores_as_json(scores: Mapping[str, Scores], **facts: Any) -> dict[str, Any]:
    """Return the content of ``eval.json``: the summary of each of ``scores``, ``per_class`` values, and ``facts``.

    If they are known, there are also the numbers of ``objects`` and ``per_keypoint`` values.
    """
    tables: dict[str, Any] = {name: scored.summary for name, scored in scores.items()}
    tables["per_class"] = {name: scored.per_class for name, scored in scores.items()}
    if objects := {name: scored.objects for name, scored in scores.items() if scored.objects}:
        tables["objects"] = objects
    if found := {name: scored.per_keypoint for name, scored in scores.items() if scored.per_keypoint}:
        tables["per_keypoint"] = found
    return {**tables, **facts}
