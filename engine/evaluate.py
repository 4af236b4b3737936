"""Run a model over a data set and score what it finds, in original pixels and ids."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data import Batch, Dataset
from ..evaluation import CocoScores, Engine, evaluate_coco, sort_results, to_coco_results
from ..models import Model
from ..structures import Detections


def detect_batch(model: Model, batch: Batch) -> list[Detections]:
    """Detections of a batch, in the original pixels of each image, on the CPU."""
    predictions = model.predict(batch.images.to(model.device))
    sizes: list[list[int]] = batch.images.sizes.tolist()
    return [
        detections.to("cpu").rescale((size[0], size[1]), original)
        for detections, size, original in zip(predictions, sizes, batch.original_sizes, strict=True)
    ]


def collect_results(model: Model, batches: Iterable[Batch], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """COCO results of every image, in an order that does not depend on how they were batched."""
    training = model.training
    model.eval()
    try:
        results: list[dict[str, Any]] = []
        for batch in batches:
            for image_id, detections in zip(batch.image_ids, detect_batch(model, batch), strict=True):
                results += to_coco_results(detections, image_id, category_ids)
    finally:
        model.train(training)
    return sort_results(results)


def score_results(dataset: Dataset, results: list[dict[str, Any]], engine: Engine) -> CocoScores:
    """COCO box scores of results against a data set's own truth."""
    return evaluate_coco(dataset.ground_truth(), results, engine=engine, task="bbox")


def scores_as_json(scores: CocoScores, **facts: Any) -> dict[str, Any]:
    """What ``eval.json`` holds: the 12 numbers per task under their usual names, AP per class, and ``facts``."""
    return {"bbox": scores.summary, "per_class": {"bbox": scores.per_class}, **facts}


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON through a temporary file, so that a reader never sees half of it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


def pick_device(name: str) -> torch.device:
    """``auto`` takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
