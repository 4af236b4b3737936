"""The kinds of predictions that the engine knows, by the name that heads and data sets give in ``task``."""

from collections.abc import Mapping

from ...data import Dataset
from ...heads import HEADS, Head, HeadConfig, MultiHead, MultiHeadConfig, required_mask_format, task_of_head
from ...models import SemanticInference
from ...structures import Classes, UsageError
from .base import Rows, Task
from .classification import ClassificationTask
from .detection import Detection
from .multi_task import MultiTask
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
]

TASKS: Mapping[str, type[Task]] = {kind.task: kind for kind in (ClassificationTask, Detection, Semantic)}
"""Those of one head."""


def pick_task(head: Head, classes: Mapping[str, Classes], inference: SemanticInference = SemanticInference()) -> Task:
    """The task of a head, with what labels mean by task; ``inference`` is for semantic heads."""
    if head.task != Semantic.task and inference != SemanticInference():
        who = "several heads look" if isinstance(head, MultiHead) else f"a head for {head.task} looks"
        raise UsageError(f"{who} at an image whole and once", "leave the config's inference as it is")
    if isinstance(head, MultiHead):
        return MultiTask({name: pick_task(part, classes) for name, part in head.named_heads()})
    if head.task not in TASKS:
        raise UsageError(f"the engine knows no task {head.task!r}", f"known: {', '.join(TASKS)}")
    own = classes[head.task]
    return Semantic(own, inference) if head.task == Semantic.task else TASKS[head.task](own)


def require_targets(head: HeadConfig, dataset: Dataset) -> None:
    """UsageError where a data set has not the truth that a head of this config learns from."""
    task = task_of_head(head.name)
    if task != dataset.task:
        fitting = [name for name in HEADS if task_of_head(name) == dataset.task]
        raise UsageError(
            f"the head is for {task}, the data set for {dataset.task}",
            f"choose another data set, or one of the heads {', '.join(fitting)}",
        )
    mask_format = required_mask_format(head)
    if isinstance(head, MultiHeadConfig):
        for part in head.heads.values():
            require_targets(part, dataset.part(task_of_head(part.name)))
    elif mask_format is not None and not dataset.masks:
        raise UsageError(
            "the head learns masks, the data set gives boxes only",
            "set masks=true in its config if its files have masks, or leave out the head's mask branch",
        )
    elif mask_format is not None and mask_format != dataset.mask_format:
        raise UsageError(
            f"the head learns masks from {mask_format}, the data set gives {dataset.mask_format}",
            f"set mask_format={mask_format} in its config, or another truth in the head's mask branch",
        )
