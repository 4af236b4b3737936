"""What the engine must know of a kind of prediction: its result rows, its scores, its pictures.

The loops, the command lines and the pictures speak to a :class:`Task` alone, so that a new kind is one more of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from ...data import Batch, Dataset, Record
from ...evaluation import Engine, Scores
from ...models import Model
from ...structures import Classes
from ..drawing import Picture

Prediction = TypeVar("Prediction")
Rows = list[dict[str, Any]]


class Task(ABC, Generic[Prediction]):
    """One kind of prediction, from the model's output to a person's eyes."""

    task: ClassVar[str]
    """Which heads and data sets it is for."""
    mark: ClassVar[str]
    """The field of a results row that tells it from those of the tasks that follow in ``TASKS``."""

    def __init__(self, classes: Classes) -> None:
        self.classes = classes

    def predict(self, model: Model, batch: Batch) -> list[Prediction]:
        """A prediction per image of the batch, in the image's original pixels, on the model's device."""
        return self.restore(model.predict(batch.images.to(model.device)), batch)

    @abstractmethod
    def restore(self, predictions: Sequence[Any], batch: Batch) -> list[Prediction]:
        """What a head predicts of a batch, in the original pixels of the images."""

    @abstractmethod
    def rows(self, prediction: Prediction, image_id: int | str) -> Rows:
        """What a results file holds of it, in JSON's terms; each row has an ``image_id``."""

    def files(self, rows: Rows) -> dict[str, Rows]:
        """The rows by the name of the results file that they belong in."""
        return {"results.json": rows}

    @abstractmethod
    def score(self, dataset: Dataset, rows: Rows, engine: Engine) -> dict[str, Scores]:
        """The rows against the data set's own truth; the key says what was scored (``bbox``)."""

    @abstractmethod
    def draw_truth(self, record: Record) -> Picture:
        """The image with its truth."""

    @abstractmethod
    def draw(self, image: Picture, prediction: Prediction, score: float) -> Picture:
        """The image (original pixels) with what is predicted from ``score`` up."""

    @abstractmethod
    def describe(self, prediction: Prediction, score: float) -> str:
        """The same in words."""
