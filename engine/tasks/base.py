"""What the engine must know of a kind of prediction: its results rows, its scores, its pictures.

The loops, the commands and the pictures speak to a :class:`Task` alone, so that a new kind of prediction is one more
file, in this folder or in a user's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, TypeVar

from ...data import Dataset, Record
from ...evaluation import Scores
from ...inference import Picture
from ...structures import UsageError, suggest
from ..config import EvaluationConfig

Prediction = TypeVar("Prediction")
Rows = list[dict[str, Any]]
TaskClass = TypeVar("TaskClass", bound="type[Task]")


class Task(ABC, Generic[Prediction]):
    """One kind of prediction, from what the model predicts in an image's original pixels to its scores and pictures.

    A class that is registered in ``TASKS`` is built from what the labels mean: ``TASKS["detection"](classes)``.
    """

    row_field: ClassVar[str] = ""
    """A field that the rows of a results file have in this task and in none of those after it in ``TASKS``."""
    higher_is_better: bool = True
    """Whether the best checkpoint of a run has the highest first number of the first scores, or the lowest."""

    @abstractmethod
    def rows(self, prediction: Prediction, image_id: int | str) -> Rows:
        """Return the rows of a results file for one image's prediction, as JSON has them; each has an ``image_id``."""

    @abstractmethod
    def score(self, dataset: Dataset, rows: Rows, config: EvaluationConfig) -> dict[str, Scores]:
        """Return the scores of rows against the data set's ground truth, by what was scored (``bbox``)."""

    @abstractmethod
    def draw_truth(self, record: Record) -> Picture:
        """Return the image with its ground truth."""

    @abstractmethod
    def draw(self, image: Picture, prediction: Prediction, score: float) -> Picture:
        """Return the image, in its original pixels, with what is predicted with at least ``score``."""

    @abstractmethod
    def describe(self, prediction: Prediction, score: float) -> str:
        """Return a line on what is predicted with at least ``score``."""


class TaskRegistry:
    """Task classes by the name that heads have in ``task``."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Task]] = {}

    def register(self, name: str) -> Callable[[TaskClass], TaskClass]:
        """Return a decorator that registers a class, built from :class:`~vertebra.structures.Classes`, under a name."""

        def add(task: TaskClass) -> TaskClass:
            known = self._classes.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (task.__module__, task.__qualname__):
                raise ValueError(f"the task name {name!r} is taken; choose another")
            self._classes[name] = task
            return task

        return add

    def __getitem__(self, name: str) -> Any:  # a type[Task] whose constructor takes Classes
        if name not in self._classes:
            fix = f"{suggest(name, self._classes)}; a task of your own is registered with TASKS.register({name!r})"
            raise UsageError(f"the engine knows no task {name!r}", fix)
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)


TASKS = TaskRegistry()
"""The tasks of one head by the name that heads have in ``task``."""
