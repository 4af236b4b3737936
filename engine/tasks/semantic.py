"""Semantic segmentation."""

from pathlib import Path
from typing import ClassVar

from jaxtyping import UInt8
from torch import Tensor

from ...data import Dataset, Record
from ...evaluation import Scores, evaluate_semantic, to_semantic_results
from ...formats import write_class_map
from ...inference import Picture, class_color, draw_classes
from ...structures import IGNORE, Classes
from ..config import EvaluationConfig
from .base import TASKS, Rows, Task, WritesImageFiles

LabelMap = UInt8[Tensor, "h w"]


@TASKS.register("semantic")
class SemanticTask(Task[LabelMap], WritesImageFiles):
    """Semantic segmentation; a prediction is a label map of the image's size."""

    row_field: ClassVar[str] = "segmentation"
    image_folder: ClassVar[str] = "label_maps"

    def __init__(self, classes: Classes) -> None:
        self.classes = classes

    def rows(self, prediction: LabelMap, image_id: int | str) -> Rows:
        return to_semantic_results(prediction, image_id, self.classes.ids)

    def score(self, dataset: Dataset, rows: Rows, config: EvaluationConfig) -> dict[str, Scores]:
        truth = dataset.ground_truth()
        return {"semantic": evaluate_semantic(truth, rows, self.classes.names, self.classes.ids)}

    def draw_truth(self, record: Record) -> Picture:
        assert record.semantic is not None, "a data set for semantic segmentation has label maps"
        return draw_classes(record.image, record.semantic, self.classes.names, self.drawing)

    def draw(self, image: Picture, prediction: LabelMap, score: float) -> Picture:
        return draw_classes(image, prediction.cpu().numpy(), self.classes.names, self.drawing)

    def describe(self, prediction: LabelMap, score: float) -> str:
        counts = prediction.flatten().bincount()
        fractions = counts / counts.sum()
        order = [label for label in counts.argsort(descending=True, stable=True).tolist() if counts[label]]
        return ", ".join(f"{self.classes.names[label]} {fractions[label]:.0%}" for label in order)

    def write_image_file(self, prediction: LabelMap, path: Path) -> None:
        """Write a PNG file whose pixel values are labels, shown in the colors of their classes."""
        colors = [class_color(label) for label in range(IGNORE)]
        write_class_map(path.with_name(f"{path.name}.png"), prediction.cpu().numpy(), colors)
