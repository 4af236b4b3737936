"""The twelve numbers of the COCO evaluation, and AP by class, from either of two engines.

hotcoco is the fast one; pycocotools is the reference that the field publishes with. Both give the same digits, since
both are given the same numbered problem (``problem.py``) and their tables are averaged by the same lines here.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import hotcoco
import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .boundary import BoundaryEvaluation
from .checks import check_results
from .coco_inputs import CocoInputs, Task, build_coco_inputs
from .scores import Scores

Engine = Literal["hotcoco", "pycocotools"]
AREAS = {"": 0, "s": 1, "m": 2, "l": 3}  # all, small, medium, large: places on the engines' axis of areas
LIMITS = {1: 0, 10: 1, 100: 2}  # detections per image and class: places on the engines' last axis
IOU_50, IOU_75 = 0, 5  # places on the engines' axis of IoU thresholds 0.50, 0.55, ... 0.95


def evaluate_coco(
    ground_truth: dict[str, Any],
    results: list[dict[str, Any]],
    engine: Engine = "hotcoco",
    task: Task = "bbox",
) -> Scores:
    """Score COCO results against a COCO annotation file, both in original ids and pixels; DataError for bad ones.

    ``bbox`` compares boxes, ``segm`` masks, ``boundary`` masks and their outlines (for which there is one engine).

    The counts tell of images, images without detections, detections, and those beyond the 100 best of an image and
    class, which the metric does not look at.
    """
    check_results(results, ground_truth)
    problem = build_coco_inputs(ground_truth, results, task)
    precision, recall = _run_boundary(problem) if task == "boundary" else ENGINES[engine](problem, task)
    per_class = {
        name: _mean(precision[:, :, number, 0, LIMITS[100]]) for number, name in enumerate(problem.class_names)
    }
    return Scores(_summarise(precision, recall), per_class, _count(problem))


def _run_hotcoco(problem: CocoInputs, task: Literal["bbox", "segm"]) -> tuple[ndarray, ndarray]:
    evaluation: Any = hotcoco.COCOeval(hotcoco.COCO(problem.truth), hotcoco.COCO(problem.detections), task)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _run_pycocotools(problem: CocoInputs, task: Literal["bbox", "segm"]) -> tuple[ndarray, ndarray]:
    return _run_quietly(COCOeval(_index(problem.truth), _index(problem.detections), task))


def _run_boundary(problem: CocoInputs) -> tuple[ndarray, ndarray]:
    return _run_quietly(BoundaryEvaluation(_index(problem.truth), _index(problem.detections)))


def _run_quietly(evaluation: Any) -> tuple[ndarray, ndarray]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _index(dataset: dict[str, Any]) -> COCO:
    """A data set that pycocotools need not read from a file; its loadRes fails on an empty list."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO()
        coco.dataset = dataset
        coco.createIndex()
    return coco


ENGINES: dict[str, Callable[[CocoInputs, Literal["bbox", "segm"]], tuple[ndarray, ndarray]]] = {
    "hotcoco": _run_hotcoco,
    "pycocotools": _run_pycocotools,
}


def _summarise(
    precision: Float[ndarray, "iou recall category area limit"], recall: Float[ndarray, "iou category area limit"]
) -> dict[str, float | None]:
    """COCO's twelve averages by their usual names."""
    best = precision[..., LIMITS[100]]
    summary = {
        "AP": _mean(best[..., 0]),
        "AP50": _mean(best[IOU_50, ..., 0]),
        "AP75": _mean(best[IOU_75, ..., 0]),
    }
    summary |= {f"AP{size}": _mean(best[..., area]) for size, area in AREAS.items() if size}
    summary |= {f"AR{limit}": _mean(recall[..., 0, place]) for limit, place in LIMITS.items()}
    return summary | {f"AR{size}": _mean(recall[..., area, LIMITS[100]]) for size, area in AREAS.items() if size}


def _mean(table: Float[ndarray, "..."]) -> float | None:
    """The mean of what was measured; the engines write -1 where there is no ground truth."""
    measured = table[table > -1]
    return float(np.mean(measured)) if measured.size else None


def _count(problem: CocoInputs) -> dict[str, int]:
    detections = problem.detections["annotations"]
    groups = Counter((detection["image_id"], detection["category_id"]) for detection in detections)
    seen = {image_id for image_id, _ in groups}
    return {
        "images": len(problem.truth["images"]),
        "images_without_detections": len(problem.truth["images"]) - len(seen),
        "detections": len(detections),
        "detections_over_limit": sum(max(count - max(LIMITS), 0) for count in groups.values()),
    }
