"""Object detection, instance segmentation and keypoint detection."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ...data import Dataset, PolygonMask, Record, pad_polygon_masks
from ...evaluation import CocoTask, Scores, evaluate_coco, evaluate_voc, to_coco_results
from ...inference import Color, ColoredMask, Picture, blend_masks, draw_boxes, draw_keypoints
from ...ops import join_first, paste_mask_patches, rasterize_polygon_masks
from ...structures import HIDDEN, UNLABELED, Classes, Detections, RoIMasks, UsageError
from ..config import EvaluationConfig
from .base import TASKS, Rows, Task

MIN_KEYPOINT_SCORE = 0.05
"""Predicted keypoints with a lower score are not drawn, as in detectron2."""
VOC_RULES: Mapping[str, Literal["11-point", "area"]] = {"voc07": "11-point", "voc12": "area"}


@TASKS.register("detection")
class DetectionTask(Task[Detections]):
    """Object detection, with instance segmentation and keypoints if the head predicts them."""

    row_field: ClassVar[str] = "score"

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self._new_labels: Int64[Tensor, " k"] | None = None

    def match_labels(self, class_names: Sequence[str]) -> None:
        """Let predictions have the labels of ``class_names``, and convert them by name in :meth:`rows`.

        Detections of classes that the data set lacks are left out, as COCO's evaluation ignores them. Raises UsageError
        if no class has the same name.
        """
        known = {name: label for label, name in enumerate(self.classes.names)}
        labels = [known.get(name, -1) for name in class_names]
        if max(labels) < 0:
            raise UsageError(
                f"the model and the data have no class in common: {join_first(class_names, separator=', ')}; "
                f"{join_first(self.classes.names, separator=', ')}",
                "classes are matched by name",
            )
        self._new_labels = torch.tensor(labels)

    def rows(self, prediction: Detections, image_id: int | str) -> Rows:
        if self._new_labels is not None:
            prediction = prediction.relabel(self._new_labels)
        skeleton = self.classes.skeleton
        return to_coco_results(prediction, image_id, self.classes.ids, 0.0 if skeleton is None else skeleton.offset)

    def score(self, dataset: Dataset, rows: Rows, config: EvaluationConfig) -> dict[str, Scores]:
        truth = dataset.ground_truth()
        scores = {}
        for metric in dataset.metrics:
            if metric == "coco":
                tasks = _scored_tasks(dataset, rows, config.boundary)
                scores |= {
                    task: evaluate_coco(truth, rows, config.engine, task, config.keypoint_sigmas, config.max_detections)
                    for task in tasks
                }
            else:
                scores[metric] = evaluate_voc(truth, rows, VOC_RULES[metric])
        return scores

    def draw_truth(self, record: Record) -> Picture:
        objects = record.objects
        assert objects is not None, "a data set for detection has objects"
        image = record.image
        masks = objects.masks if objects.polygon_masks is None else _rasterize(objects.polygon_masks, image.shape[:2])
        if masks is not None:
            colors = self.drawing.colors(objects.labels.tolist())
            colored = (ColoredMask(mask > 0, color) for mask, color in zip(masks, colors, strict=True))
            image = blend_masks(image, colored, self.drawing)
        boxes, labels = torch.from_numpy(objects.boxes), torch.from_numpy(objects.labels)
        image = draw_boxes(image, boxes, labels, self.classes.names, config=self.drawing)
        if objects.keypoints is None:
            return image
        visibility = objects.keypoints.values[..., 2]
        return self._draw_keypoints(image, objects.keypoints.values, visibility > UNLABELED, visibility == HIDDEN)

    def draw(self, image: Picture, prediction: Detections, score: float) -> Picture:
        drawn = prediction[prediction.scores >= score]
        if drawn.masks is not None:
            colors = self.drawing.colors(drawn.labels.tolist())
            image = blend_masks(image, _colored_masks(drawn, drawn.masks, colors), self.drawing)
        image = draw_boxes(image, drawn.boxes, drawn.labels, self.classes.names, drawn.scores, self.drawing)
        if drawn.keypoints is None:
            return image
        keypoints = drawn.keypoints.cpu().numpy()
        shown = keypoints[..., 2] >= MIN_KEYPOINT_SCORE
        return self._draw_keypoints(image, keypoints, shown, np.zeros_like(shown))

    def _draw_keypoints(
        self,
        image: Picture,
        keypoints: Float[np.ndarray, "n k 3"],
        shown: Bool[np.ndarray, "n k"],
        hollow: Bool[np.ndarray, "n k"],
    ) -> Picture:
        edges = () if self.classes.skeleton is None else self.classes.skeleton.edges
        return draw_keypoints(image, keypoints[..., :2], edges, shown, hollow)

    def describe(self, prediction: Detections, score: float) -> str:
        return f"{int((prediction.scores >= score).sum())} of {len(prediction)} detections with a score >= {score}"


def _scored_tasks(dataset: Dataset, rows: Rows, boundary: bool) -> list[CocoTask]:
    """Return the tasks that can be scored: those of which the rows have the field and the data set the ground truth.

    Without rows, all tasks with ground truth are scored, as 0.
    """
    fields = {field for row in rows for field in row} if rows else {"bbox", "segmentation", "keypoints"}
    tasks: list[CocoTask] = ["bbox"] if "bbox" in fields else []
    if dataset.masks and "segmentation" in fields:
        tasks.append("segm")
        if boundary:
            tasks.append("boundary")
    if dataset.skeleton is not None and "keypoints" in fields:
        tasks.append("keypoints")
    return tasks or ["bbox"]


def _colored_masks(detections: Detections, masks: RoIMasks, colors: Sequence[Color]) -> Iterator[ColoredMask]:
    """Yield the mask of each detection with its color in order of rising score, so that the best is drawn on top."""
    rising = torch.arange(len(detections) - 1, -1, -1, device=detections.boxes.device)
    patches = paste_mask_patches(masks[rising], detections.boxes[rising])
    for (patch, corner), color in zip(patches, reversed(colors), strict=True):
        yield ColoredMask(patch.cpu().numpy(), color, corner)


def _rasterize(polygon_masks: Sequence[PolygonMask], size: tuple[int, int]) -> Bool[np.ndarray, "n h w"]:
    """Rasterize polygon masks to binary masks of an image with this (height, width)."""
    frames = torch.tensor([[0.0, 0.0, size[1], size[0]]]).expand(len(polygon_masks), 4)
    indices = torch.arange(len(polygon_masks))
    return rasterize_polygon_masks(pad_polygon_masks(polygon_masks), indices, frames, size).numpy()
