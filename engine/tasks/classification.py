"""Image classification."""

from typing import ClassVar

from ...data import Dataset, Record
from ...evaluation import Scores, evaluate_classification, to_class_results
from ...inference import Picture, draw_lines
from ...structures import Classes, Classification
from ..config import EvaluationConfig
from .base import TASKS, Rows, Task


@TASKS.register("classification")
class ClassificationTask(Task[Classification]):
    """Image classification; a prediction holds the most likely classes and their probabilities."""

    row_field: ClassVar[str] = "labels"

    def __init__(self, classes: Classes) -> None:
        self.classes = classes

    def rows(self, prediction: Classification, image_id: int | str) -> Rows:
        return to_class_results(prediction, image_id)

    def score(self, dataset: Dataset, rows: Rows, config: EvaluationConfig) -> dict[str, Scores]:
        return {"classification": evaluate_classification(dataset.ground_truth(), rows, self.classes.names)}

    def draw_truth(self, record: Record) -> Picture:
        assert record.label is not None, "a data set for classification has labels"
        return draw_lines(record.image, [self.classes.names[record.label]], self.drawing)

    def draw(self, image: Picture, prediction: Classification, score: float) -> Picture:
        return draw_lines(image, self._class_lines(prediction, score), self.drawing)

    def describe(self, prediction: Classification, score: float) -> str:
        return ", ".join(self._class_lines(prediction, score))

    def _class_lines(self, prediction: Classification, score: float) -> list[str]:
        """Return a line for each class with a probability of at least ``score``, and for the most likely if none."""
        pairs = list(zip(prediction.labels.tolist(), prediction.scores.tolist(), strict=True))
        shown = [pair for pair in pairs if pair[1] >= score] or pairs[:1]
        return [f"{self.classes.names[label]} {probability:.2f}" for label, probability in shown]
