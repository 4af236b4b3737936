"""Detections as COCO results, and the twelve numbers of the COCO evaluation, with AP by class.

Either of two engines computes them: hotcoco, the fast one, and pycocotools, which the field publishes with. Both give
the same digits, since both are given the same numbered data sets (``coco_inputs.py``) and their tables are averaged by
the same lines here.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from ..formats.results import check_results
from ..formats.rle import encode_mask
from ..ops import paste_masks_in_chunks
from ..structures import Detections
from .coco_inputs import CocoInputs, Task, build_coco_inputs
from .scores import Scores

Engine = Literal["hotcoco", "pycocotools"]
Tables = tuple[ndarray, ndarray]
"""Precision by IoU threshold, recall, class, range of areas and limit of detections; recall by the same without the
second."""
AREAS = {"": 0, "s": 1, "m": 2, "l": 3}
"""All, small, medium and large objects: indices on the axis of areas."""
LIMITS = {1: 0, 10: 1, 100: 2}
"""Detections per image and class: indices on the last axis."""
IOU_50, IOU_75 = 0, 5
"""Indices on the axis of IoU thresholds 0.50, 0.55, ... 0.95."""


def to_coco_results(detections: Detections, image_id: int | str, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return the detections of one image as COCO results: boxes (x, y, width, height) in pixels of the original image,
    and the file's own category ids, which ``category_ids`` has for each label."""
    corners = detections.boxes.cpu().double()  # not every device has float64
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    results: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for label, box, score in zip(
            detections.labels.tolist(), boxes.tolist(), detections.scores.tolist(), strict=True
        )
    ]
    if detections.masks is not None:
        chunks = paste_masks_in_chunks(detections.masks, detections.boxes)  # all would fill the memory on a large photo
        pasted = (mask for chunk in chunks for mask in chunk.cpu().numpy())
        for result, mask in zip(results, pasted, strict=True):
            result["segmentation"] = encode_mask(mask)
    return results


def evaluate_coco(
    ground_truth: dict[str, Any],
    results: list[dict[str, Any]],
    engine: Engine = "hotcoco",
    task: Task = "bbox",
) -> Scores:
    """Score COCO results against a COCO annotation file, both in original ids and pixels; DataError for bad ones.

    ``bbox`` compares boxes, ``segm`` masks, ``boundary`` masks and their outlines, which neither engine computes.

    The counts tell of images, images without detections, detections, and those beyond the 100 best of an image and
    class, which the metric does not look at.
    """
    check_results(results, ground_truth)
    inputs = build_coco_inputs(ground_truth, results, task)
    precision, recall = _evaluate(inputs, engine, task)
    per_class = {name: _mean(precision[:, :, number, 0, LIMITS[100]]) for number, name in enumerate(inputs.class_names)}
    return Scores(_summarize(precision, recall), per_class, _count(inputs))


def _evaluate(inputs: CocoInputs, engine: Engine, task: Task) -> Tables:
    if task == "boundary":
        from .boundary import evaluate_boundaries

        return evaluate_boundaries(inputs)
    return ENGINES[engine](inputs, task)


def _run_hotcoco(inputs: CocoInputs, task: Literal["bbox", "segm"]) -> Tables:
    import hotcoco

    evaluation: Any = hotcoco.COCOeval(hotcoco.COCO(inputs.ground_truth), hotcoco.COCO(inputs.detections), task)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _run_pycocotools(inputs: CocoInputs, task: Literal["bbox", "segm"]) -> Tables:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation: Any = COCOeval(_index(inputs.ground_truth), _index(inputs.detections), task)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _index(dataset: dict[str, Any]) -> Any:
    """Return a data set for pycocotools, whose own loader of results fails on an empty list."""
    from pycocotools.coco import COCO

    coco: Any = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


ENGINES: dict[str, Callable[[CocoInputs, Literal["bbox", "segm"]], Tables]] = {
    "hotcoco": _run_hotcoco,
    "pycocotools": _run_pycocotools,
}


def _summarize(
    precision: Float[ndarray, "iou recall category area limit"], recall: Float[ndarray, "iou category area limit"]
) -> dict[str, float | None]:
    """Return COCO's twelve averages by their usual names."""
    best = precision[..., LIMITS[100]]
    summary = {
        "AP": _mean(best[..., 0]),
        "AP50": _mean(best[IOU_50, ..., 0]),
        "AP75": _mean(best[IOU_75, ..., 0]),
    }
    summary |= {f"AP{size}": _mean(best[..., area]) for size, area in AREAS.items() if size}
    summary |= {f"AR{limit}": _mean(recall[..., 0, index]) for limit, index in LIMITS.items()}
    return summary | {f"AR{size}": _mean(recall[..., area, LIMITS[100]]) for size, area in AREAS.items() if size}


def _mean(table: Float[ndarray, "..."]) -> float | None:
    """Return the mean of what was measured; the engines write -1 where there is no ground truth."""
    measured = table[table > -1]
    return float(np.mean(measured)) if measured.size else None


def _count(inputs: CocoInputs) -> dict[str, int]:
    detections = inputs.detections["annotations"]
    groups = Counter((detection["image_id"], detection["category_id"]) for detection in detections)
    with_detections = {image_id for image_id, _ in groups}
    images = len(inputs.ground_truth["images"])
    return {
        "images": images,
        "images_without_detections": images - len(with_detections),
        "detections": len(detections),
        "detections_over_limit": sum(max(count - max(LIMITS), 0) for count in groups.values()),
    }
