"""The interface between the engine and one type of prediction: results rows, scores and pictures.

The loops and the commands only use :class:`Task`, so that a new type of prediction needs one new file, in this folder
or in user code.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from ...data import Dataset, Record
from ...evaluation import Scores
from ...inference import DrawingConfig, Picture
from ...structures import UsageError, suggest
from ..config import EvaluationConfig

Prediction = TypeVar("Prediction")
Rows = list[dict[str, Any]]
RowSource = Iterable[dict[str, Any]]
"""Results rows that can be iterated over more than once: a list, or a file that is read again each time."""


class Task(ABC, Generic[Prediction]):
    """Base class of tasks, which convert predictions in original pixels to results rows, scores and pictures.

    Register a subclass with ``TASKS.register(name)``; it is built from the classes: ``TASKS["detection"](classes)``.
    """

    row_field: ClassVar[str] = ""
    """A field of results rows that identifies this task: no task after it in ``TASKS`` has it."""
    open_set: ClassVar[bool] = False
    """Whether a model may be evaluated on classes that it was not trained on (open-set evaluation)."""
    higher_is_better: bool = True
    """Whether a higher main score (the first number of the first scores) is better; it picks the best checkpoint."""

    drawing: DrawingConfig = DrawingConfig()
    """How pictures are drawn; :func:`pick_task` sets it."""

    @abstractmethod
    def rows(self, prediction: Prediction, image_id: int | str) -> Rows:
        """Return the rows of a results file for one image's prediction: JSON objects, each with an ``image_id``.

        It is called in other threads while the model predicts the next batch, as are :meth:`draw` and
        :meth:`describe`, so it must not change the task. ``vertebra predict`` adds the class name to a ``category_id``
        and the class names to ``labels`` in its ``results.jsonl``.
        """

    @abstractmethod
    def score(self, dataset: Dataset, rows: Rows, config: EvaluationConfig) -> dict[str, Scores]:
        """Score results rows against the data set's ground truth; return the scores by name, such as ``bbox``."""

    @abstractmethod
    def draw_truth(self, record: Record) -> Picture:
        """Return the record's image with its ground truth drawn on it."""

    @abstractmethod
    def draw(self, image: Picture, prediction: Prediction, score: float) -> Picture:
        """Return the original image with the predictions that score at least ``score`` drawn on it."""

    @abstractmethod
    def describe(self, prediction: Prediction, score: float) -> str:
        """Return a one-line summary of the predictions that score at least ``score``."""


class WritesFiles(ABC):
    """A mixin for tasks that also write their predictions in another format than the results files."""

    @abstractmethod
    def write_files(self, rows: RowSource, results: Path, file_names: Mapping[Any, str]) -> list[str]:
        """Write the results rows of all images in the task's format, and return the names of the main files.

        ``results`` is the path of the results file, ``results.json`` or ``results_HEAD.json``; the names of all files
        should be derived from it. ``file_names`` maps image ids to file names, if these are known.
        """


class WritesImageFiles(ABC):
    """A mixin for tasks of which ``vertebra predict`` also writes each image's prediction to a file of its own."""

    image_folder: ClassVar[str]
    """The name of the folder for these files in the output folder."""

    @abstractmethod
    def write_image_file(self, prediction: Any, path: Path) -> None:
        """Write a prediction to a file; ``path`` lacks the suffix of the format, which is added."""


TaskClass = TypeVar("TaskClass", bound=type[Task])


class TaskRegistry:
    """A registry of task classes, by the name that heads give in their ``task`` attribute."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Task]] = {}

    def register(self, name: str) -> Callable[[TaskClass], TaskClass]:
        """Return a decorator that registers a task class under a name.

        The class must be constructible from a :class:`~vertebra.structures.Classes`. Raises ValueError if another class
        has the name.
        """

        def add(task: TaskClass) -> TaskClass:
            registered = self._classes.get(name)
            if registered is not None and (registered.__module__, registered.__qualname__) != (
                task.__module__,
                task.__qualname__,
            ):
                raise ValueError(f"the task name {name!r} is taken; choose another")
            self._classes[name] = task
            return task

        return add

    def __getitem__(self, name: str) -> Any:  # a type[Task] whose constructor takes Classes
        if name not in self._classes:
            fix = f"{suggest(name, self._classes)}; register a custom task with TASKS.register({name!r})"
            raise UsageError(f"there is no task {name!r}", fix)
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)


TASKS = TaskRegistry()
"""The registry of tasks; :class:`MultiTask`, which combines several, is not in it."""
