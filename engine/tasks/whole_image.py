"""The class of the whole image."""

from collections.abc import Sequence

from ...data import Batch, Dataset, Record
from ...evaluation import Engine, Scores, evaluate_classification, to_class_results
from ...models import Model
from ...structures import Classification
from ..drawing import Picture, draw_lines
from .base import Rows, Task


class WholeImage(Task[Classification]):
    """The likeliest classes of the whole image."""

    def predict(self, model: Model, batch: Batch) -> list[Classification]:
        return model.predict(batch.images.to(model.device))

    def rows(self, prediction: Classification, image_id: int | str, category_ids: Sequence[int]) -> Rows:
        return to_class_results(prediction, image_id)

    def score(self, dataset: Dataset, rows: Rows, engine: Engine) -> dict[str, Scores]:
        return {"classification": evaluate_classification(dataset.ground_truth(), rows, dataset.class_names)}

    def draw_truth(self, record: Record, class_names: Sequence[str]) -> Picture:
        assert record.label is not None, "a data set for classification has labels"
        return draw_lines(record.image, [class_names[record.label]])

    def draw(self, image: Picture, prediction: Classification, class_names: Sequence[str], score: float) -> Picture:
        return draw_lines(image, _named(prediction, class_names, score))

    def describe(self, prediction: Classification, class_names: Sequence[str], score: float) -> str:
        return ", ".join(_named(prediction, class_names, score))


def _named(prediction: Classification, class_names: Sequence[str], score: float) -> list[str]:
    """The classes from a score up, and the likeliest one in any case."""
    pairs = list(zip(prediction.labels.tolist(), prediction.scores.tolist(), strict=True))
    shown = [pair for pair in pairs if pair[1] >= score] or pairs[:1]
    return [f"{class_names[label]} {share:.2f}" for label, share in shown]
