"""The class of every pixel."""

from collections.abc import Sequence

from jaxtyping import UInt8
from torch import Tensor

from ...data import Batch, Dataset, Record
from ...evaluation import Engine, Scores, evaluate_semantic, to_semantic_results
from ...heads import Head
from ...models import Model, SemanticInference, segment
from ...ops import label_map
from ..drawing import Picture, draw_classes
from .base import Rows, Task

LabelMap = UInt8[Tensor, "h w"]


class Semantic(Task[LabelMap]):
    """A map of classes as large as the image."""

    def __init__(self, inference: SemanticInference = SemanticInference()) -> None:
        self.inference = inference

    @classmethod
    def of(cls, head: Head, inference: SemanticInference) -> "Semantic":
        return cls(inference)

    def predict(self, model: Model, batch: Batch) -> list[LabelMap]:
        scores = segment(model, batch.images.to(model.device), self.inference)
        return [label_map(each.logits, size) for each, size in zip(scores, batch.original_sizes, strict=True)]

    def rows(self, prediction: LabelMap, image_id: int | str, category_ids: Sequence[int]) -> Rows:
        return to_semantic_results(prediction, image_id, category_ids)

    def score(self, dataset: Dataset, rows: Rows, engine: Engine) -> dict[str, Scores]:
        truth = dataset.ground_truth()
        return {"semantic": evaluate_semantic(truth, rows, dataset.class_names, dataset.category_ids)}

    def draw_truth(self, record: Record, class_names: Sequence[str]) -> Picture:
        assert record.semantic is not None, "a data set for segmentation has a map of classes"
        return draw_classes(record.image, record.semantic, class_names)

    def draw(self, image: Picture, prediction: LabelMap, class_names: Sequence[str], score: float) -> Picture:
        return draw_classes(image, prediction.cpu().numpy(), class_names)

    def describe(self, prediction: LabelMap, class_names: Sequence[str], score: float) -> str:
        counts = prediction.flatten().bincount()
        shares = counts / counts.sum()
        order = [label for label in counts.argsort(descending=True, stable=True).tolist() if counts[label]]
        return ", ".join(f"{class_names[label]} {shares[label]:.0%}" for label in order)
