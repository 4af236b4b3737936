"""Scores of an exported file beside those of the model that it was exported from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluation import Scores, evaluate_coco
from ..formats import read_ground_truth
from ..inference import Predictor, load_photo
from ..structures import UsageError
from .prediction.ids import ImageIds, find_category_ids
from .tasks import DetectionTask, pick_task

FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
"""The field of results rows that each COCO task scores."""


def compare_scores(
    model: str | os.PathLike[str],
    exported: str | os.PathLike[str],
    files: Sequence[Path],
    annotations: Path,
    *,
    like: str | None = None,
) -> str:
    """Return a line with the COCO AP of a model and of its exported file on image files.

    ``annotations`` is a COCO file with the objects of the images, which are found by file name. Raises UsageError if
    the model does not detect objects.
    """
    by_model, by_file = (
        _score(Predictor(source, "cpu", like=one), files, annotations)
        for source, one in ((model, like), (exported, None))
    )
    parts = [f"{task} {by_model[task].summary['AP']:.4f} and {by_file[task].summary['AP']:.4f}" for task in by_model]
    return f"AP of the model and of the file: {', '.join(parts)}"


def _score(predictor: Predictor, files: Sequence[Path], annotations: Path) -> dict[str, Scores]:
    """Predict image files, and score the predictions against those objects of a COCO file that are on these images."""
    truth = read_ground_truth(annotations)
    classes = {task: find_category_ids(known, truth, annotations) for task, known in predictor.trained.classes.items()}
    task = pick_task(predictor.model.head, classes)
    if not isinstance(task, DetectionTask):
        raise UsageError("--annotations scores detections only", "score both with vertebra eval and --data")
    image_ids = ImageIds(truth, annotations)
    ids = [image_ids.find(file.as_posix()) for file in files]
    rows = [
        row
        for file, image_id in zip(files, ids, strict=True)
        for row in task.rows(predictor(load_photo(file)), image_id)
    ]
    seen = set(ids)
    part: dict[str, Any] = {
        **truth,
        "images": [image for image in truth["images"] if image["id"] in seen],
        "annotations": [one for one in truth["annotations"] if one["image_id"] in seen],
    }
    scored = [name for name, field in FIELDS.items() if any(field in row for row in rows[:1])]
    scored = [name for name in scored if any(FIELDS[name] in one for one in part["annotations"])]
    return {name: evaluate_coco(part, rows, task=name) for name in scored or ["bbox"]}  # pyright: ignore[reportArgumentType]
