"""What the engine must know of a kind of prediction: its result rows, its scores, its pictures.

The loops, the command lines and the pictures speak to a :class:`Task` alone, so that a new kind is one more of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch

from ..data import Batch, Dataset, Record
from ..evaluation import (
    Engine,
    Scores,
    evaluate_classification,
    evaluate_coco,
    to_class_results,
    to_coco_results,
)
from ..heads import Head, heads
from ..models import Model
from ..structures import Classification, Detections, UsageError
from .drawing import Picture, draw_boxes, draw_lines

Prediction = TypeVar("Prediction")
Rows = list[dict[str, Any]]


class Task(ABC, Generic[Prediction]):
    """One kind of prediction, from the model's output to a person's eyes."""

    @abstractmethod
    def predict(self, model: Model, batch: Batch) -> list[Prediction]:
        """A prediction per image of the batch, in the image's original pixels, on the CPU."""

    @abstractmethod
    def rows(self, prediction: Prediction, image_id: int | str, category_ids: Sequence[int]) -> Rows:
        """What a results file holds of it, in JSON's terms; each row has an ``image_id``."""

    @abstractmethod
    def score(self, dataset: Dataset, rows: Rows, engine: Engine) -> dict[str, Scores]:
        """The rows against the data set's own truth; the key says what was scored (``bbox``)."""

    @abstractmethod
    def draw_truth(self, record: Record, class_names: Sequence[str]) -> Picture:
        """The image with its truth."""

    @abstractmethod
    def draw(self, image: Picture, prediction: Prediction, class_names: Sequence[str], score: float) -> Picture:
        """The image (original pixels) with what is predicted from ``score`` up."""

    @abstractmethod
    def describe(self, prediction: Prediction, class_names: Sequence[str], score: float) -> str:
        """The same in words."""


class Detection(Task[Detections]):
    """Boxes with a class and a score."""

    def predict(self, model: Model, batch: Batch) -> list[Detections]:
        sizes: list[list[int]] = batch.images.sizes.tolist()
        return [
            detections.to("cpu").rescale((size[0], size[1]), original)
            for detections, size, original in zip(
                model.predict(batch.images.to(model.device)), sizes, batch.original_sizes, strict=True
            )
        ]

    def rows(self, prediction: Detections, image_id: int | str, category_ids: Sequence[int]) -> Rows:
        return to_coco_results(prediction, image_id, category_ids)

    def score(self, dataset: Dataset, rows: Rows, engine: Engine) -> dict[str, Scores]:
        return {"bbox": evaluate_coco(dataset.ground_truth(), rows, engine=engine, task="bbox")}

    def draw_truth(self, record: Record, class_names: Sequence[str]) -> Picture:
        objects = record.objects
        assert objects is not None, "a data set for detection has objects"
        return draw_boxes(record.image, torch.from_numpy(objects.boxes), torch.from_numpy(objects.labels), class_names)

    def draw(self, image: Picture, prediction: Detections, class_names: Sequence[str], score: float) -> Picture:
        kept = prediction.scores >= score
        boxes, labels, scores = (part[kept] for part in (prediction.boxes, prediction.labels, prediction.scores))
        return draw_boxes(image, boxes, labels, class_names, scores)

    def describe(self, prediction: Detections, class_names: Sequence[str], score: float) -> str:
        return f"{int((prediction.scores >= score).sum())} of {len(prediction)} detections from {score} up"


class WholeImage(Task[Classification]):
    """The likeliest classes of the whole image."""

    def predict(self, model: Model, batch: Batch) -> list[Classification]:
        return [classes.to("cpu") for classes in model.predict(batch.images.to(model.device))]

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


TASKS: Mapping[str, Task] = {"detection": Detection(), "classification": WholeImage()}
"""By the name that heads and data sets give in ``task``."""


def pick_task(head: Head, *datasets: Dataset) -> Task:
    """The task of a head; UsageError where a data set has truth of another kind."""
    for dataset in datasets:
        if dataset.task != head.task:
            fitting = [name for name in heads if getattr(heads[name].build, "task", None) == dataset.task]
            raise UsageError(
                f"the head is for {head.task}, the data set for {dataset.task}",
                f"choose another data set, or one of the heads {', '.join(fitting)}",
            )
    if head.task not in TASKS:
        raise UsageError(f"the engine knows no task {head.task!r}", f"known: {', '.join(TASKS)}")
    return TASKS[head.task]
