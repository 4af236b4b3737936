"""What the engine must know of a kind of prediction: its result rows, its scores, its pictures.

The loops, the command lines and the pictures speak to a :class:`Task` alone, so that a new kind is one more of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from ...data import Batch, Dataset, Record
from ...evaluation import Engine, Scores
from ...heads import Head
from ...models import Model, SemanticInference
from ..drawing import Picture

Prediction = TypeVar("Prediction")
Rows = list[dict[str, Any]]


class Task(ABC, Generic[Prediction]):
    """One kind of prediction, from the model's output to a person's eyes."""

    @classmethod
    def of(cls, head: Head, inference: SemanticInference) -> "Task":
        """The task as this head does it; ``inference`` says how a semantic one looks at an image."""
        return cls()

    @abstractmethod
    def predict(self, model: Model, batch: Batch) -> list[Prediction]:
        """A prediction per image of the batch, in the image's original pixels, on the model's device."""

    @abstractmethod
    def rows(self, prediction: Prediction, image_id: int | str, category_ids: Sequence[int]) -> Rows:
        """What a results file holds of it, in JSON's terms; each row has an ``image_id``."""

    @abstractmethod
    def score(self, dataset: Dataset, rows: Rows, engine: Engine) -> dict[str, Scores]:
        """The rows against the data set's own truth; the key says what was scored (``bbox``)."""

    @abstractmethod
    def draw_truth(self, record: Record, class_names: Sequence[str]) -> Picture:
        """The image with its truth."""

    @abstractmethod
    def draw(self, image: Picture, prediction: Prediction, class_names: Sequence[str], score: float) -> Picture:
        """The image (original pixels) with what is predicted from ``score`` up."""

    @abstractmethod
    def describe(self, prediction: Prediction, class_names: Sequence[str], score: float) -> str:
        """The same in words."""
