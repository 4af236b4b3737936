"""Class names in the results rows of a prediction, for readers that do not have the list of classes."""

from collections.abc import Mapping
from typing import Any

from ...structures import Classes
from ..tasks import MultiTask, Rows, Task

NAME, NAMES = "class_name", "class_names"
"""The fields that are added to rows, beside ``category_id`` and ``labels``."""


def add_class_names(task: Task, rows: Rows) -> Rows:
    """Return results rows with the class name of each ``category_id``, also in segments, and those of ``labels``."""
    return [_add_to_row(row, _classes_of_row(task, row)) for row in rows]


def remove_class_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a results row as it was before :func:`add_class_names`."""
    plain = {key: value for key, value in row.items() if key not in (NAME, NAMES)}
    if "segments_info" in plain:
        plain["segments_info"] = [remove_class_names(segment) for segment in plain["segments_info"]]
    return plain


def _classes_of_row(task: Task, row: Mapping[str, Any]) -> Classes | None:
    """Return the classes of the task that a row belongs to; None if a custom task has none."""
    if isinstance(task, MultiTask):
        task = task.parts[row["head"]].task
    classes = getattr(task, "classes", None)
    return classes if isinstance(classes, Classes) else None


def _add_to_row(row: Mapping[str, Any], classes: Classes | None) -> dict[str, Any]:
    """Return a row or a segment with class names."""
    named = dict(row)
    if classes is None:
        return named
    if row.get("category_id") in classes.ids:
        named[NAME] = classes.names[classes.ids.index(row["category_id"])]
    if isinstance(row.get("labels"), list):
        named[NAMES] = [classes.names[label] for label in row["labels"]]
    if "segments_info" in row:
        named["segments_info"] = [_add_to_row(segment, classes) for segment in row["segments_info"]]
    return named
