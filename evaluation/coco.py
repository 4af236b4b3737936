"""COCO evaluation of detections: results rows, COCO's metrics of boxes, masks and keypoints, and AP per class.

One of two libraries computes the precision and recall tables: hotcoco, which is faster, or pycocotools, the reference.
Their metrics are identical: both get the same data sets with renumbered ids (``coco_inputs.py``), and their tables are
averaged by the same code here.
"""

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ..formats.detection_rows import detection_rows
from ..formats.json_files import paused_garbage_collection
from ..formats.rle import encode_mask, encode_patch
from ..structures import Detections, RoIMasks
from .coco_columns import Columns
from .coco_inputs import CocoInputs, Task, build_coco_inputs, group_entries
from .coco_tables import LIMITS
from .keypoints import LIMIT as KEYPOINT_LIMIT
from .keypoints import keypoint_recall, keypoint_sigmas
from .scores import Scores

Engine = Literal["hotcoco", "pycocotools"]
EngineTask = Literal["bbox", "segm", "keypoints"]
Limits = tuple[int, int, int]
"""The maximum numbers of detections per image and class on the last axis of the tables: those of AR1, AR10 and AP."""
Sigmas = Float[ndarray, " k"] | None
"""The OKS sigma of each keypoint; None if keypoints are not scored."""
Tables = tuple[ndarray, ndarray]
"""Precision, with axes (IoU threshold, recall, class, area range, maximum number of detections), and recall, with the
same axes except recall."""
AREAS = {"": 0, "s": 1, "m": 2, "l": 3}
"""Index of all, small, medium and large objects on the axis of area ranges."""
MAX_DETECTIONS = 100
"""COCO's maximum number of detections per image and class for AP."""
KEYPOINT_AREAS = {"": 0, "m": 1, "l": 2}
"""Index of all, medium and large objects on the axis of area ranges in the tables of keypoints."""
IOU_50, IOU_75 = 0, 5
"""Index of IoU 0.50 and 0.75 on the axis of IoU thresholds 0.50, 0.55, ... 0.95."""


def to_coco_results(
    detections: Detections, image_id: int | str, category_ids: Sequence[int], keypoint_offset: float = 0.0
) -> list[dict[str, Any]]:
    """Return the detections of one image as COCO results; see :func:`~vertebra.formats.detection_rows`."""
    masks = None if detections.masks is None else _encode_masks(detections, detections.masks)
    return detection_rows(detections, masks, image_id, category_ids, keypoint_offset)


def _encode_masks(detections: Detections, masks: RoIMasks) -> Iterator[dict[str, Any]]:
    """Yield the mask of each detection as compressed RLE of its image.

    Bitmaps are pasted around one box at a time, or on a GPU, unless the image is large, into a few whole images.
    """
    from ..ops import MASK_BUDGET, paste_mask_patches, paste_masks_in_chunks  # imports torchvision

    if masks.grids.device.type == "cpu" or math.prod(masks.size) > MASK_BUDGET:
        for patch, corner in paste_mask_patches(masks, detections.boxes):
            yield encode_patch(patch.cpu().numpy(), corner, masks.size)
    else:
        for chunk in paste_masks_in_chunks(masks, detections.boxes):
            yield from map(encode_mask, chunk.cpu().numpy())


def evaluate_coco(
    ground_truth: dict[str, Any],
    results: list[dict[str, Any]],
    engine: Engine = "hotcoco",
    task: Task = "bbox",
    sigmas: Mapping[str, float] = {},
    max_detections: int = MAX_DETECTIONS,
) -> Scores:
    """Score COCO results against the content of a COCO annotation file, both with original ids and pixels.

    The task ``bbox`` compares boxes, ``segm`` masks, ``boundary`` masks and their boundaries (boundary AP, which is
    computed here, not by ``engine``), and ``keypoints`` keypoints by OKS, with the ``sigmas`` of
    :func:`~vertebra.evaluation.keypoints.keypoint_sigmas`. ``max_detections`` is the number of best detections of an
    image and class that are scored (COCO's 100; always 20 for keypoints). The counts are the numbers of images, of
    images without detections, of detections, of those beyond this limit, and of those of classes without objects; the
    metrics ignore the last two. Raises DataError for invalid annotations or results, and ValueError if
    ``max_detections`` is not above 10.
    """
    if max_detections <= LIMITS[1]:
        raise ValueError(f"max_detections must be above {LIMITS[1]}, the limit of AR{LIMITS[1]}; got {max_detections}")
    with paused_garbage_collection():  # which would visit millions of results again and again
        inputs = build_coco_inputs(ground_truth, results, task)
    if task == "keypoints":
        return _score_keypoints(inputs, engine, sigmas)
    limits = (*LIMITS[:2], max_detections)
    precision, recall = _evaluate(inputs, engine, task, limits)
    per_class = {name: _mean(precision[:, :, number, 0, -1]) for number, name in enumerate(inputs.class_names)}
    objects = _count_objects(inputs)
    return Scores(_summarize(precision, recall, limits), per_class, _count(inputs, max_detections), objects=objects)


def _score_keypoints(inputs: CocoInputs, engine: Engine, given_sigmas: Mapping[str, float]) -> Scores:
    """Return COCO's ten metrics of keypoints, AP per class, and the fraction of each keypoint that was found."""
    sigmas = keypoint_sigmas(inputs.keypoint_names, given_sigmas)
    precision, recall = (table[..., 0] for table in ENGINES[engine](inputs, "keypoints", sigmas, LIMITS))
    summary = {}
    for metric, table in (("AP", precision), ("AR", recall)):
        best = table[..., KEYPOINT_AREAS[""]]
        summary |= {metric: _mean(best), f"{metric}50": _mean(best[IOU_50]), f"{metric}75": _mean(best[IOU_75])}
        summary |= {f"{metric}{size}": _mean(table[..., area]) for size, area in KEYPOINT_AREAS.items() if size}
    per_class = {name: _mean(precision[:, :, number, 0]) for number, name in enumerate(inputs.class_names)}
    truths, detections = (group_entries(part["annotations"]) for part in (inputs.ground_truth, inputs.detections))
    found = keypoint_recall(truths, detections, inputs.keypoint_names, sigmas)
    return Scores(summary, per_class, _count(inputs, KEYPOINT_LIMIT), found, _count_objects(inputs))


def _evaluate(inputs: CocoInputs, engine: Engine, task: Task, limits: Limits) -> Tables:
    if task == "boundary":
        from .boundary import evaluate_boundaries

        return evaluate_boundaries(inputs, limits)
    return ENGINES[engine](inputs, task, None, limits)


def _run_hotcoco(inputs: CocoInputs, task: EngineTask, sigmas: Sigmas = None, limits: Limits = LIMITS) -> Tables:
    import hotcoco

    evaluation: Any = hotcoco.COCOeval(*_hotcoco_data_sets(inputs, task), task)
    if sigmas is not None:
        evaluation.params.kpt_oks_sigmas = sigmas.tolist()
    else:
        evaluation.params.max_dets = list(limits)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _hotcoco_data_sets(inputs: CocoInputs, task: EngineTask) -> tuple[Any, Any]:
    """Return ground truth and detections for hotcoco, built from columns: a dict per detection takes much longer."""
    import hotcoco

    truths, found = inputs.truths, inputs.found
    if task == "keypoints" or not len(found.images):
        return hotcoco.COCO(inputs.ground_truth), hotcoco.COCO(inputs.detections)
    truth_masks: Any = truths.masks
    truth: Any = hotcoco.COCO.from_arrays(
        inputs.images, inputs.categories, truths.images, truths.categories, _boxes(truths),
        area=truths.areas, iscrowd=truths.crowd, segmentation=truth_masks,
    )  # fmt: skip
    columns: Any = [found.images, _boxes(found), found.scores, found.categories]
    table = np.column_stack(columns)
    detections = truth.load_res(table, segmentation=found.masks)
    if found.masks is not None:
        detections.update_anns(ids=np.arange(1, len(table) + 1), area=found.areas)
    return truth, detections


def _boxes(columns: Columns) -> Float[ndarray, "n 4"]:
    """Return the boxes; if masks are scored, zeros, since hotcoco then does not read them."""
    return np.zeros((len(columns.images), 4)) if columns.boxes is None else columns.boxes


def _run_pycocotools(inputs: CocoInputs, task: EngineTask, sigmas: Sigmas = None, limits: Limits = LIMITS) -> Tables:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation: Any = COCOeval(_index(inputs.ground_truth), _index(inputs.detections), task)
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        else:
            evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _index(dataset: dict[str, Any]) -> Any:
    """Return a pycocotools data set; its method ``loadRes`` would fail for an empty list of results."""
    from pycocotools.coco import COCO

    coco: Any = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


ENGINES: dict[str, Callable[[CocoInputs, EngineTask, Sigmas, Limits], Tables]] = {
    "hotcoco": _run_hotcoco,
    "pycocotools": _run_pycocotools,
}


def _summarize(
    precision: Float[ndarray, "iou recall category area limit"],
    recall: Float[ndarray, "iou category area limit"],
    limits: Limits,
) -> dict[str, float | None]:
    """Return the twelve COCO metrics by their usual names."""
    best = precision[..., -1]
    summary = {
        "AP": _mean(best[..., 0]),
        "AP50": _mean(best[IOU_50, ..., 0]),
        "AP75": _mean(best[IOU_75, ..., 0]),
    }
    summary |= {f"AP{size}": _mean(best[..., area]) for size, area in AREAS.items() if size}
    summary |= {f"AR{limit}": _mean(recall[..., 0, index]) for index, limit in enumerate(limits)}
    return summary | {f"AR{size}": _mean(recall[..., area, -1]) for size, area in AREAS.items() if size}


def _mean(table: Float[ndarray, "..."]) -> float | None:
    """Return the mean over the entries with ground truth; the tables hold -1 where there is none."""
    measured = table[table > -1]
    return float(np.mean(measured)) if measured.size else None


def _count(inputs: CocoInputs, limit: int) -> dict[str, int]:
    found, images = inputs.found, len(inputs.images)
    groups = found.images * (len(inputs.class_names) + 1) + found.categories
    per_group = np.unique(groups, return_counts=True)[1]
    return {
        "images": images,
        "images_without_detections": images - len(np.unique(found.images)),
        "detections": len(found.images),
        "detections_over_limit": int(np.maximum(per_group - limit, 0).sum()),
        "detections_without_objects": int((~np.isin(found.categories, inputs.truths.categories)).sum()),
    }


def _count_objects(inputs: CocoInputs) -> dict[str, int]:
    """Return the number of objects of each class in the ground truth, without crowds."""
    single = inputs.truths.categories[inputs.truths.crowd == 0]
    counts = np.bincount(single, minlength=len(inputs.class_names) + 1)[1:].tolist()
    return dict(zip(inputs.class_names, counts, strict=True))
