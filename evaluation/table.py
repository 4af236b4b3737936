"""Scores as text for a terminal or a log."""

from .scores import Scores

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


def format_scores(scores: Scores, kind: str = "metric") -> str:
    """The summary, its first number by class and the counts as aligned lines; ``-`` where nothing was to be found.

    ``kind`` says what was scored, at the head of the table.

    Of more than a hundred classes it shows the worst.
    """
    summary = [(name, _number(value), DESCRIPTIONS.get(name, "")) for name, value in scores.summary.items()]
    classes = [(name, _number(value)) for name, value in _worst(scores.per_class).items()]
    counts = [(name.replace("_", " "), str(count)) for name, count in scores.counts.items()]
    tables = [
        _align([(kind, "score", "over"), *summary]),
        _align([("class", next(iter(scores.summary))), *classes]),
        _align([("count of", "number"), *counts]),
    ]
    return "\n\n".join(tables)


def _worst(per_class: dict[str, float | None]) -> dict[str, float | None]:
    """All classes where they fit a screen, otherwise those with the lowest numbers."""
    if len(per_class) <= SHOWN_CLASSES:
        return per_class
    measured = [name for name, value in per_class.items() if value is not None]
    worst = sorted(measured, key=lambda name: per_class[name] or 0.0)[:SHOWN_CLASSES]
    return {name: per_class[name] for name in worst}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _align(rows: list[tuple[str, ...]]) -> str:
    """Lines with names to the left, numbers to the right, remarks after them."""
    name_width, number_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(
        "  ".join([row[0].ljust(name_width), row[1].rjust(number_width), *row[2:]]).rstrip() for row in rows
    )
