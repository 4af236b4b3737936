"""The class of the whole image."""

from collections.abc import Sequence
from typing import ClassVar

from ...data import Batch, Dataset, Record
from ...evaluation import Engine, Scores, evaluate_classification, to_class_results
from ...structures import Classification
from ..drawing import Picture, draw_lines
from .base import Rows, Task


class ClassificationTask(Task[Classification]):
    """The likeliest classes of the whole image."""

    task: ClassVar[str] = "classification"
    mark: ClassVar[str] = "labels"

    def restore(self, predictions: Sequence[Classification], batch: Batch) -> list[Classification]:
        return list(predictions)

    def rows(self, prediction: Classification, image_id: int | str) -> Rows:
        return to_class_results(prediction, image_id)

    def score(self, dataset: Dataset, rows: Rows, engine: Engine) -> dict[str, Scores]:
        return {"classification": evaluate_classification(dataset.ground_truth(), rows, self.classes.names)}

    def draw_truth(self, record: Record) -> Picture:
        assert record.label is not None, "a data set for classification has labels"
        return draw_lines(record.image, [self.classes.names[record.label]])

    def draw(self, image: Picture, prediction: Classification, score: float) -> Picture:
        return draw_lines(image, self._named(prediction, score))

    def describe(self, prediction: Classification, score: float) -> str:
        return ", ".join(self._named(prediction, score))

    def _named(self, prediction: Classification, score: float) -> list[str]:
        """The classes from a score up, and the likeliest one in any case."""
        pairs = list(zip(prediction.labels.tolist(), prediction.scores.tolist(), strict=True))
        shown = [pair for pair in pairs if pair[1] >= score] or pairs[:1]
        return [f"{self.classes.names[label]} {share:.2f}" for label, share in shown]
