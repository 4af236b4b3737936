"""The kinds of predictions that the engine knows, by the name that heads and data sets give in ``task``."""

from collections.abc import Mapping

from ...data import Dataset
from ...heads import Head, heads
from ...models import SemanticInference
from ...structures import UsageError
from .base import Rows, Task
from .detection import Detection
from .semantic import Semantic
from .whole_image import WholeImage

__all__ = ["TASKS", "Detection", "Rows", "Semantic", "Task", "WholeImage", "pick_task"]

TASKS: Mapping[str, type[Task]] = {"classification": WholeImage, "detection": Detection, "semantic": Semantic}


def pick_task(head: Head, *datasets: Dataset, inference: SemanticInference = SemanticInference()) -> Task:
    """The task of a head; UsageError where a data set has no truth for it. ``inference`` is for semantic heads."""
    for dataset in datasets:
        if dataset.task != head.task:
            fitting = [name for name in heads if getattr(heads[name].build, "task", None) == dataset.task]
            raise UsageError(
                f"the head is for {head.task}, the data set for {dataset.task}",
                f"choose another data set, or one of the heads {', '.join(fitting)}",
            )
        if head.needs_masks and not dataset.masks:
            raise UsageError(
                "the head learns masks, the data set gives boxes only",
                "set masks=true in its config if its files have masks, or leave out the head's mask branch",
            )
    if head.task not in TASKS:
        raise UsageError(f"the engine knows no task {head.task!r}", f"known: {', '.join(TASKS)}")
    return TASKS[head.task].of(head, inference)
