"""Boxes, and masks where the head has a branch for them."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool

from ...data import Batch, Dataset, Outline, Record, pad_outlines
from ...evaluation import Engine, Scores, evaluate_coco, evaluate_voc, to_coco_results
from ...ops import cut_outlines, paste_masks
from ...structures import Detections
from ..drawing import Picture, blend_mask, class_color, draw_boxes
from .base import Rows, Task

VOC_RULES: Mapping[str, Literal["11-point", "area"]] = {"voc07": "11-point", "voc12": "area"}


class Detection(Task[Detections]):
    """Boxes with a class and a score, and masks where there are some."""

    task: ClassVar[str] = "detection"

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
                kinds = _comparable(dataset, rows)
                scores |= {kind: evaluate_coco(truth, rows, engine=engine, task=kind) for kind in kinds}
            else:
                scores[metric] = evaluate_voc(truth, rows, VOC_RULES[metric])
        return scores

    def draw_truth(self, record: Record) -> Picture:
        objects = record.objects
        assert objects is not None, "a data set for detection has objects"
        image = record.image
        masks = objects.masks if objects.outlines is None else _draw(objects.outlines, image.shape[:2])
        if masks is not None:
            for mask, label in zip(masks, objects.labels.tolist(), strict=True):
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


def _comparable(dataset: Dataset, rows: Rows) -> tuple[Literal["bbox", "segm", "boundary"], ...]:
    """What the rows hold and the data set can judge. No rows found nothing, be it a box or a mask."""
    fields = {field for row in rows for field in row} if rows else {"bbox", "segmentation"}
    masks = dataset.masks and "segmentation" in fields
    boxes = "bbox" in fields or not masks
    return (("bbox",) if boxes else ()) + (("segm", "boundary") if masks else ())


def _draw(outlines: Sequence[Outline], size: tuple[int, int]) -> Bool[np.ndarray, "n h w"]:
    """Outlines as bitmaps of a whole image."""
    whole = torch.tensor([[0.0, 0.0, size[1], size[0]]]).expand(len(outlines), 4)
    return cut_outlines(pad_outlines(outlines), torch.arange(len(outlines)), whole, size).numpy()
