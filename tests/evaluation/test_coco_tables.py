"""COCO's precision and recall tables for any overlaps: equal to pycocotools', to the last bit."""

import numpy as np
import pytest
from pycocotools import mask as rle

from vertebra.evaluation.coco import ENGINES
from vertebra.evaluation.coco_inputs import CocoInputs, build_coco_inputs
from vertebra.evaluation.coco_tables import AREA_RANGES, IOU_THRESHOLDS, RECALLS, Group, precision_and_recall

from .test_coco_evaluation import random_problem


def groups_with_pycocotools_overlaps(inputs: CocoInputs) -> list[Group]:
    """Return the groups of a problem, with the overlaps that pycocotools computes."""
    groups_with_pycocotools_overlaps = []
    for category in inputs.ground_truth["categories"]:
        for image in inputs.ground_truth["images"]:
            truths, detections = (
                [
                    entry for entry in part["annotations"]
                    if (entry["image_id"], entry["category_id"]) == (image["id"], category["id"])
                ]
                for part in (inputs.ground_truth, inputs.detections)
            )  # fmt: skip
            best = sorted(detections, key=lambda detection: -detection["score"])[:100]
            crowd = [truth["iscrowd"] for truth in truths]
            boxes = [np.array([entry["bbox"] for entry in part], float).reshape(-1, 4) for part in (best, truths)]
            overlaps = rle.iou(*boxes, crowd) if best and truths else np.zeros((len(best), len(truths)))
            groups_with_pycocotools_overlaps.append(Group(
                category["id"] - 1, overlaps,
                *(np.array([entry[field] for entry in part], float)
                  for part, field in ((best, "score"), (best, "area"), (truths, "area"))),
                np.array(crowd, bool),
            ))  # fmt: skip
    return groups_with_pycocotools_overlaps


@pytest.mark.parametrize("seed", range(8))
def test_tables_equal_pycocotools(seed):
    """Oracle: pycocotools, on crowds, ranges of areas, limits on detections, equal scores and equal overlaps; bit
    for bit."""
    inputs = build_coco_inputs(*random_problem(seed), "bbox")
    precision, recall = ENGINES["pycocotools"](inputs, "bbox")
    tables = precision_and_recall(groups_with_pycocotools_overlaps(inputs), len(inputs.class_names))
    assert np.array_equal(tables[0], precision)
    assert np.array_equal(tables[1], recall)
    assert 0 < precision.max() < 1 or 0 < np.mean(precision > 0.5) < 1


def test_axes_equal_pycocotools():
    """Oracle: pycocotools' parameters."""
    from pycocotools.cocoeval import Params

    parameters = Params("bbox")
    assert np.array_equal(IOU_THRESHOLDS, parameters.iouThrs) and np.array_equal(RECALLS, parameters.recThrs)
    assert AREA_RANGES.tolist() == np.array(parameters.areaRng, float).tolist()


def test_tables_without_groups_are_minus_one():
    """By hand: -1 in place of all numbers, as in both engines."""
    precision, recall = precision_and_recall([], 2)
    assert (precision == -1).all() and (recall == -1).all()
    nothing = np.zeros(0)
    only_detections = Group(0, np.zeros((1, 0)), np.ones(1), np.ones(1), nothing, np.zeros(0, bool))
    assert (precision_and_recall([only_detections], 1)[0] == -1).all()
