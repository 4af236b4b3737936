"""What every evaluation comes to, whatever its task, and how it is shown in a terminal or a log."""

from collections.abc import Mapping
from dataclasses import dataclass

SHOWN_CLASSES = 100

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
    "ARs": "area below 32 x 32",
    "ARm": "area 32 x 32 to 96 x 96",
    "ARl": "area above 96 x 96",
    "top1": "the likeliest class is right",
    "top5": "one of the five likeliest is",
    "mIoU": "classes, intersection over union",
    "pixel_accuracy": "pixels",
    "mean_accuracy": "classes, share of their pixels",
    "frequency_weighted_iou": "classes, weighed by their pixels",
}
"""What the known numbers are taken over; a number without a description is shown without one."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Numbers by their usual names; None, which JSON writes as null, where there was nothing to measure.

    ``per_class`` is the first number of ``summary``, class by class. ``counts`` tells of images, results and what of
    them did not enter the numbers.
    """

    summary: dict[str, float | None]
    per_class: dict[str, float | None]
    counts: dict[str, int]


def format_scores(scores: Scores, kind: str = "metric") -> str:
    """Return the summary, its first number by class and the counts as aligned lines, ``-`` for what was not measured.

    ``kind`` says what was scored, at the head of the table. Of more than a hundred classes the worst are shown.
    """
    tables = [[(kind, "score", "over")]]
    tables[0] += [(name, _number(value), DESCRIPTIONS.get(name, "")) for name, value in scores.summary.items()]
    if scores.per_class:
        classes = [(name, _number(value)) for name, value in _worst(scores.per_class).items()]
        tables.append([("class", next(iter(scores.summary), "score")), *classes])
    if scores.counts:
        counts = [(name.replace("_", " "), str(count)) for name, count in scores.counts.items()]
        tables.append([("count of", "number"), *counts])
    return "\n\n".join(map(_align, tables))


def _worst(per_class: Mapping[str, float | None]) -> Mapping[str, float | None]:
    """Return all classes where they fit a screen, otherwise those with the lowest numbers."""
    if len(per_class) <= SHOWN_CLASSES:
        return per_class
    measured = {name: value for name, value in per_class.items() if value is not None}
    return dict(sorted(measured.items(), key=lambda pair: pair[1])[:SHOWN_CLASSES])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _align(rows: list[tuple[str, ...]]) -> str:
    """Return lines with names to the left, numbers to the right, and descriptions after them."""
    name_width, number_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        "  ".join([row[0].ljust(name_width), row[1].rjust(number_width), *row[2:]]).rstrip() for row in rows
    )
