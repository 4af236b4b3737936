"""The class of every pixel."""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import UInt8
from torch import Tensor

from ...data import Batch, Dataset, Record
from ...evaluation import Engine, Scores, evaluate_semantic, to_semantic_results
from ...models import Model, SemanticInference, predict_semantic
from ...ops import label_map
from ...structures import Classes, SemanticLogits
from ..drawing import Picture, draw_classes
from .base import Rows, Task

LabelMap = UInt8[Tensor, "h w"]


class Semantic(Task[LabelMap]):
    """A map of classes as large as the image."""

    task: ClassVar[str] = "semantic"
    mark: ClassVar[str] = "segmentation"

    def __init__(self, classes: Classes, inference: SemanticInference = SemanticInference()) -> None:
        super().__init__(classes)
        self.inference = inference

    def predict(self, model: Model, batch: Batch) -> list[LabelMap]:
        return self.restore(predict_semantic(model, batch.images.to(model.device), self.inference), batch)

    def restore(self, predictions: Sequence[SemanticLogits], batch: Batch) -> list[LabelMap]:
        return [label_map(logits, size) for logits, size in zip(predictions, batch.original_sizes, strict=True)]

    def rows(self, prediction: LabelMap, image_id: int | str) -> Rows:
        return to_semantic_results(prediction, image_id, self.classes.ids)

    def score(self, dataset: Dataset, rows: Rows, engine: Engine) -> dict[str, Scores]:
        truth = dataset.ground_truth()
        return {"semantic": evaluate_semantic(truth, rows, self.classes.names, self.classes.ids)}

    def draw_truth(self, record: Record) -> Picture:
        assert record.semantic is not None, "a data set for segmentation has a map of classes"
        return draw_classes(record.image, record.semantic, self.classes.names)

    def draw(self, image: Picture, prediction: LabelMap, score: float) -> Picture:
        return draw_classes(image, prediction.cpu().numpy(), self.classes.names)

    def describe(self, prediction: LabelMap, score: float) -> str:
        counts = prediction.flatten().bincount()
        shares = counts / counts.sum()
        order = [label for label in counts.argsort(descending=True, stable=True).tolist() if counts[label]]
        return ", ".join(f"{self.classes.names[label]} {shares[label]:.0%}" for label in order)
