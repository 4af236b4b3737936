"""Boxes, and masks where the head has a branch for them."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch

from ...data import Batch, Dataset, Record
from ...evaluation import Engine, Scores, evaluate_coco, evaluate_voc, to_coco_results
from ...heads import Head
from ...models import SemanticInference
from ...ops import paste_masks
from ...structures import Classes, Detections
from ..drawing import Picture, blend_mask, class_color, draw_boxes
from .base import Rows, Task

VOC_RULES: Mapping[str, Literal["11-point", "area"]] = {"voc07": "11-point", "voc12": "area"}


class Detection(Task[Detections]):
    """Boxes with a class and a score; ``masks`` says whether masks are scored too."""

    task: ClassVar[str] = "detection"

    def __init__(self, classes: Classes, masks: bool = False) -> None:
        super().__init__(classes)
        self.masks = masks

    @classmethod
    def of(cls, head: Head, classes: Classes, inference: SemanticInference) -> "Detection":
        return cls(classes, masks=head.needs_masks)

    def restore(self, predictions: Sequence[Detections], batch: Batch) -> list[Detections]:
        sizes: list[list[int]] = batch.images.sizes.tolist()
        return [
            detections.rescale((height, width), original)
            for detections, (height, width), original in zip(predictions, sizes, batch.original_sizes, strict=True)
        ]

    def rows(self, prediction: Detections, image_id: int | str) -> Rows:
        return to_coco_results(prediction, image_id, self.classes.ids)

    def score(self, dataset: Dataset, rows: Rows, engine: Engine) -> dict[str, Scores]:
        truth = dataset.ground_truth()
        scores = {}
        for metric in dataset.metrics:
            if metric == "coco":
                kinds = ("bbox", "segm", "boundary") if self.masks else ("bbox",)
                scores |= {kind: evaluate_coco(truth, rows, engine=engine, task=kind) for kind in kinds}
            else:
                scores[metric] = evaluate_voc(truth, rows, VOC_RULES[metric])
        return scores

    def draw_truth(self, record: Record) -> Picture:
        objects = record.objects
        assert objects is not None, "a data set for detection has objects"
        image = record.image
        if objects.masks is not None:
            for mask, label in zip(objects.masks, objects.labels.tolist(), strict=True):
                image = blend_mask(image, mask > 0, class_color(label))
        return draw_boxes(image, torch.from_numpy(objects.boxes), torch.from_numpy(objects.labels), self.classes.names)

    def draw(self, image: Picture, prediction: Detections, score: float) -> Picture:
        kept = prediction[prediction.scores >= score]
        if kept.masks is not None:
            for index in reversed(range(len(kept))):  # the best on top
                mask = paste_masks(kept.masks[index : index + 1], kept.boxes[index : index + 1])[0].cpu().numpy()
                image = blend_mask(image, mask, class_color(int(kept.labels[index])))
        return draw_boxes(image, kept.boxes, kept.labels, self.classes.names, kept.scores)

    def describe(self, prediction: Detections, score: float) -> str:
        return f"{int((prediction.scores >= score).sum())} of {len(prediction)} detections from {score} up"
