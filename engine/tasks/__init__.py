"""The kinds of predictions that the engine knows, by the name that heads have in ``task``.

The imports below fill ``TASKS``; a user's own file adds to it with ``TASKS.register``.
"""

from collections.abc import Mapping

from ...data import Dataset
from ...heads import (
    HEADS,
    Head,
    HeadConfig,
    MultiHead,
    MultiHeadConfig,
    required_mask_format,
    target_task_of_head,
    task_of_head,
)
from ...structures import Classes, DataError, UsageError
from .base import TASKS, Rows, Task
from .classification import ClassificationTask
from .detection import Detection
from .multi_task import MultiTask, TaskOfHead, results_files
from .semantic import Semantic

__all__ = [
    "TASKS",
    "ClassificationTask",
    "Detection",
    "MultiTask",
    "Rows",
    "Semantic",
    "Task",
    "pick_task",
    "require_targets",
    "results_files",
    "task_of_results",
]


def pick_task(head: Head, classes: Mapping[str, Classes]) -> Task:
    """Return the task of a head; ``classes`` says what labels mean, by the task of the data set that has them."""
    if isinstance(head, MultiHead):
        parts = {name: TaskOfHead(pick_task(part, classes), part.targets()) for name, part in head.named_heads()}
        return MultiTask(parts)
    return TASKS[head.task](classes[head.targets()])


def require_targets(head: HeadConfig, dataset: Dataset) -> None:
    """Raise UsageError where a data set does not have the targets that a head of this config learns from."""
    task = target_task_of_head(head.name)
    if task != dataset.task:
        fitting = [name for name in HEADS if target_task_of_head(name) == dataset.task]
        raise UsageError(
            f"the head is for {task}, the data set for {dataset.task}",
            f"choose another data set, or one of the heads {', '.join(fitting)}",
        )
    mask_format = required_mask_format(head)
    if isinstance(head, MultiHeadConfig):
        for part in head.heads.values():
            require_targets(part, dataset.part(target_task_of_head(part.name)))
    elif mask_format is not None and not dataset.masks:
        raise UsageError(
            "the head learns masks, the data set gives boxes only",
            "set masks=true in its config if its files have masks, or leave out the head's mask branch",
        )
    elif mask_format is not None and mask_format != dataset.mask_format:
        raise UsageError(
            f"the head learns masks from {mask_format}, the data set gives {dataset.mask_format}",
            f"set mask_format={mask_format} in its config, or other targets in the head's mask branch",
        )


def task_of_results(rows: Rows, head: HeadConfig, dataset: Dataset) -> tuple[Task, Dataset]:
    """Return the task that the rows of a results file are of, and the part of a data set with its ground truth.

    That is the task of the head, or of one of several heads, or one of the data set's own: the fields of the first row
    tell. Raises DataError where they do not.
    """
    heads = list(head.heads.values()) if isinstance(head, MultiHeadConfig) else [head]
    targets = {task: task for task in TASKS if task in dataset.classes}
    targets |= {task_of_head(part.name): target_task_of_head(part.name) for part in heads}
    candidates = [task for task in TASKS if targets.get(task) in dataset.classes]
    if len(heads) == 1:  # a user's own task goes before that of the data set it is scored on
        candidates.sort(key=lambda task: task != task_of_head(head.name))
    known = [task for task in candidates if rows and TASKS[task].row_field in rows[0]]
    if not known and len(heads) > 1:
        what = f"the first row is none of {' or '.join(candidates)}" if rows else "no row tells whose results it is"
        raise DataError(what, "give a file of one head's results", case="bad-results")
    task = (known or candidates)[0]
    return TASKS[task](dataset.classes[targets[task]]), dataset.part(targets[task])
