"""Boxes, and masks where the head has a branch for them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool

from ...data import Batch, Dataset, PolygonMask, Record, pad_polygon_masks
from ...evaluation import Engine, Scores, evaluate_coco, evaluate_voc, to_coco_results
from ...ops import paste_masks, rasterize_polygon_masks
from ...structures import Detections, RoIMasks
from ..drawing import Picture, blend_masks, class_color, draw_boxes
from .base import Rows, Task

VOC_RULES: Mapping[str, Literal["11-point", "area"]] = {"voc07": "11-point", "voc12": "area"}


class Detection(Task[Detections]):
    """Boxes with a class and a score, and masks where there are some."""

    task: ClassVar[str] = "detection"
    mark: ClassVar[str] = "score"

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
        masks = objects.masks if objects.polygon_masks is None else _draw(objects.polygon_masks, image.shape[:2])
        if masks is not None:
            labels: list[int] = objects.labels.tolist()
            image = blend_masks(
                image, ((mask > 0, class_color(label)) for mask, label in zip(masks, labels, strict=True))
            )
        return draw_boxes(image, torch.from_numpy(objects.boxes), torch.from_numpy(objects.labels), self.classes.names)

    def draw(self, image: Picture, prediction: Detections, score: float) -> Picture:
        kept = prediction[prediction.scores >= score]
        if kept.masks is not None:
            image = blend_masks(image, _pasted(kept, kept.masks))
        return draw_boxes(image, kept.boxes, kept.labels, self.classes.names, kept.scores)

    def describe(self, prediction: Detections, score: float) -> str:
        return f"{int((prediction.scores >= score).sum())} of {len(prediction)} detections from {score} up"


def _comparable(dataset: Dataset, rows: Rows) -> tuple[Literal["bbox", "segm", "boundary"], ...]:
    """What the rows hold and the data set can judge. No rows found nothing, be it a box or a mask."""
    fields = {field for row in rows for field in row} if rows else {"bbox", "segmentation"}
    masks = dataset.masks and "segmentation" in fields
    boxes = "bbox" in fields or not masks
    return (("bbox",) if boxes else ()) + (("segm", "boundary") if masks else ())


def _pasted(found: Detections, masks: RoIMasks) -> Iterator[tuple[Bool[np.ndarray, "h w"], tuple[int, int, int]]]:
    """Each mask on the whole image, in its class's colour; the best come last, and so on top."""
    for index in reversed(range(len(found))):
        own = slice(index, index + 1)
        yield paste_masks(masks[own], found.boxes[own])[0].cpu().numpy(), class_color(int(found.labels[index]))


def _draw(polygon_masks: Sequence[PolygonMask], size: tuple[int, int]) -> Bool[np.ndarray, "n h w"]:
    """Outlines as bitmaps of a whole image."""
    whole = torch.tensor([[0.0, 0.0, size[1], size[0]]]).expand(len(polygon_masks), 4)
    return rasterize_polygon_masks(
        pad_polygon_masks(polygon_masks), torch.arange(len(polygon_masks)), whole, size
    ).numpy()
