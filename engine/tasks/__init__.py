"""Tasks: how the predictions of a head become results rows, scores and pictures.

``TASKS`` maps the ``task`` attribute of heads to task classes. The imports below register the built-in tasks; user code
adds its own with ``TASKS.register``.
"""

from collections.abc import Mapping

from ...data import Dataset, require_same_classes
from ...heads import (
    HEADS,
    Head,
    HeadConfig,
    MultiHead,
    MultiHeadConfig,
    required_keypoints,
    required_mask_format,
    target_task_of_head,
    task_of_head,
)
from ...inference import DrawingConfig
from ...structures import Classes, DataError, UsageError, suggest
from ..config import EvaluationConfig
from .base import TASKS, Rows, RowSource, Task
from .classification import ClassificationTask
from .detection import DetectionTask
from .embedding import EmbeddingTask
from .multi_task import MultiTask, TaskOfHead, results_files, write_image_files, write_results_files
from .panoptic import PanopticTask
from .semantic import SemanticTask

__all__ = [
    "TASKS",
    "ClassificationTask",
    "DetectionTask",
    "EmbeddingTask",
    "MultiTask",
    "PanopticTask",
    "RowSource",
    "Rows",
    "SemanticTask",
    "Task",
    "pick_task",
    "require_classes",
    "require_keypoint_sigmas",
    "require_targets",
    "results_files",
    "task_of_results",
    "write_image_files",
    "write_results_files",
]


def pick_task(
    head: Head,
    classes: Mapping[str, Classes],
    trained: Mapping[str, Classes] | None = None,
    drawing: DrawingConfig = DrawingConfig(),
) -> Task:
    """Return the task of a head; ``classes`` holds the classes of the data set for each of its target tasks.

    If the model has other classes, ``trained`` holds them: detections get the labels of the data set by class name.
    ``drawing`` is how the task draws pictures.
    """
    if isinstance(head, MultiHead):
        parts = {
            name: TaskOfHead(pick_task(part, classes, trained, drawing), part.targets())
            for name, part in head.named_heads()
        }
        return MultiTask(parts)
    if head.predicted_tasks:
        return MultiTask(
            {task: TaskOfHead(_build_task(task, classes[task], drawing), task) for task in head.predicted_tasks}
        )
    target = head.targets()
    task = _build_task(head.task, classes[target], drawing)
    if trained is not None and isinstance(task, DetectionTask) and trained[target].names != classes[target].names:
        task.match_labels(trained[target].names)
    return task


def _build_task(name: str, classes: Classes, drawing: DrawingConfig) -> Task:
    """Build a registered task for these classes."""
    task: Task = TASKS[name](classes)
    task.drawing = drawing
    return task


def require_targets(head: HeadConfig, dataset: Dataset) -> None:
    """Raise UsageError if a data set does not provide the targets that a head with this config is trained with."""
    task = target_task_of_head(head.name)
    if task != dataset.task:
        fitting = [name for name in HEADS if target_task_of_head(name) == dataset.task]
        raise UsageError(
            f"the head is for {task}, but the data set is for {dataset.task}",
            f"choose another data set, or one of the heads {', '.join(fitting)}",
        )
    mask_format, keypoints = required_mask_format(head), required_keypoints(head)
    if isinstance(head, MultiHeadConfig):
        for part in head.heads.values():
            require_targets(part, dataset.part(target_task_of_head(part.name)))
    elif mask_format is not None and not dataset.masks:
        raise UsageError(
            "the head needs masks, but the data set provides boxes only",
            "set masks=true in the data set's config if its files have masks, or leave out the head's mask branch",
        )
    elif mask_format is not None and mask_format != dataset.mask_format:
        raise UsageError(
            f"the head needs masks as {mask_format}, but the data set provides {dataset.mask_format}",
            f"set mask_format={mask_format} in the data set's config, or change the targets of the head's mask branch",
        )
    if keypoints is not None:
        _require_keypoints(keypoints, dataset)


def _require_keypoints(names: tuple[str, ...], dataset: Dataset) -> None:
    """Raise UsageError if the data set has no keypoints, or if their names differ from ``names``."""
    if dataset.skeleton is None:
        raise UsageError(
            "the head needs keypoints, but the data set provides none",
            "set keypoints={} in the data set's config if its file has them, or leave out the head's keypoint branch",
        )
    if dataset.skeleton.names != names:
        raise UsageError(
            f"the head predicts the keypoints {', '.join(names)}, but the data set has "
            f"{', '.join(dataset.skeleton.names)}",
            "set names in the head's keypoint branch to those of the data set, in the same order",
        )


def require_keypoint_sigmas(evaluation: EvaluationConfig, dataset: Dataset) -> None:
    """Raise UsageError if ``keypoint_sigmas`` has a keypoint that the data set does not have."""
    skeletons = [classes.skeleton for classes in dataset.classes.values() if classes.skeleton is not None]
    names = [name for skeleton in skeletons for name in skeleton.names]
    for name in evaluation.keypoint_sigmas:
        if name not in names:
            fix = suggest(name, names) if names else "leave it out: the data set provides no keypoints"
            raise UsageError(f"evaluation.keypoint_sigmas: there is no keypoint {name!r}", fix)


def require_classes(
    head: HeadConfig,
    trained: Mapping[str, Classes],
    evaluated: Mapping[str, Classes],
    names: tuple[str, str] = ("train", "val"),
) -> None:
    """Raise UsageError if a model with this head is trained and evaluated on different classes but must not be.

    Classes are compared by target task, unless the tasks of all heads with that target are open-set, as embeddings are.
    ``names`` are the names of the two data sets in the message.
    """
    heads = _single_heads(head)
    closed = {target_task_of_head(part.name) for part in heads if not TASKS[task_of_head(part.name)].open_set}
    free = {target_task_of_head(part.name) for part in heads} - closed
    require_same_classes({task: classes for task, classes in trained.items() if task not in free}, evaluated, names)


def _single_heads(head: HeadConfig) -> list[HeadConfig]:
    """Return the configs of all heads of a multi-head config; for any other head, the config itself in a list."""
    return list(head.heads.values()) if isinstance(head, MultiHeadConfig) else [head]


def task_of_results(rows: Rows, head: HeadConfig, dataset: Dataset) -> tuple[Task, Dataset]:
    """Return the task of the rows of a results file, and the part of the data set that holds its ground truth.

    The fields of the first row identify the task among those of the head or heads and of the data set. Raises DataError
    if the model has several heads and the first row fits none of them, or there are no rows.
    """
    heads = _single_heads(head)
    targets = {task: task for task in TASKS if task in dataset.classes}
    targets |= {task_of_head(part.name): target_task_of_head(part.name) for part in heads}
    candidates = [task for task in TASKS if targets.get(task) in dataset.classes]
    if len(heads) == 1:  # a custom task of the head goes before the built-in task of the data set
        candidates.sort(key=lambda task: task != task_of_head(head.name))
    matching = [task for task in candidates if rows and TASKS[task].row_field in rows[0]]
    if not matching and len(heads) > 1:
        fault = f"the first row is not a result of {' or '.join(candidates)}" if rows else "the file has no rows"
        raise DataError(f"{fault}, so its head is unknown", "give the results file of one head", case="bad-results")
    task = (matching or candidates)[0]
    return TASKS[task](dataset.classes[targets[task]]), dataset.part(targets[task])
