"""Boundary AP against a slow computation of the paper's definition (2103.16562), and by hand."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.cocoeval import COCOeval

from vertebra.evaluation import evaluate_coco
from vertebra.evaluation.boundary import boundary_iou, evaluate_boundaries, inner_boundary
from vertebra.evaluation.coco import _index
from vertebra.evaluation.coco_inputs import build_coco_inputs

FIXTURE = Path(__file__).parents[3] / "shared" / "data" / "coco_eval_100"
SIZE = (50, 60)
REACH = 2  # 0.02 of a diagonal of 78 pixels, rounded


def square(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def slow_boundary(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return the pixels of a mask that have another value, or the border of the image, within ``reach`` king's
    moves."""
    rows, columns = mask.shape
    found = np.zeros(mask.shape, bool)
    for row, column in np.argwhere(mask).tolist():
        around = [
            0 <= r < rows and 0 <= c < columns and bool(mask[r, c])
            for r in range(row - reach, row + reach + 1)
            for c in range(column - reach, column + reach + 1)
        ]
        found[row, column] = not all(around)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_boundary_equals_a_slow_loop(seed):
    """Oracle: a slow loop over pixels, on ragged masks that touch the border of the image too."""
    noise = np.random.default_rng(seed).random((13, 15)) < 0.8
    mask = noise.repeat(4, axis=0).repeat(4, axis=1)[: SIZE[0], : SIZE[1]].astype(np.uint8)
    found, drawn = inner_boundary(mask), np.zeros(SIZE, bool)
    height, width = found.pixels.shape
    drawn[found.top : found.top + height, found.left : found.left + width] = found.pixels
    assert np.array_equal(drawn, slow_boundary(mask, REACH))


@pytest.mark.parametrize("seed", range(3))
def test_boundary_overlaps_equal_those_of_bitmaps(seed):
    """Oracle: a slow computation on whole images, for ragged masks in boxes of which neither contains the other."""
    noise = np.random.default_rng(seed).random((2, *SIZE)) < 0.9
    masks = [square(5, 5, 35, 45) * noise[0], square(8, 1, 40, 40) * noise[1]]
    ring, other = (slow_boundary(mask, REACH) for mask in masks)
    expected = (ring & other).sum() / (ring | other).sum()
    assert boundary_iou(*map(inner_boundary, masks)) == pytest.approx(expected, abs=1e-12)


def test_each_detection_is_scored_by_its_own_overlap():
    """By hand: of two results the worse is first in the file, and both overlap the object by half or more."""
    data, results = problem((square(5, 5, 45, 45), square(5, 5, 45, 45)))
    _, worse = problem((square(5, 5, 45, 45), square(5, 8, 45, 48)))
    scores = evaluate_coco(data, [worse[0] | {"score": 0.1}, *results], task="boundary")
    assert scores.summary["AP"] == pytest.approx(1.0)


def test_memory_does_not_grow_with_the_image_size():
    """Law, measured in a process of its own: twenty objects and results on four million pixels each, where
    boundaries of whole images would take 160 MB."""
    program = """
import resource, numpy as np
from hotcoco import mask as rle
from vertebra.evaluation import evaluate_coco
mask = np.zeros((2000, 2000), np.uint8, order="F")
mask[900:1000, 900:1000] = 1
shape = {"size": [2000, 2000], "counts": rle.encode(mask)["counts"].decode()}
rows = [{"image_id": number, "category_id": 1, "score": 0.5, "segmentation": shape} for number in range(20)]
truth = {
    "images": [{"id": number, "height": 2000, "width": 2000} for number in range(20)],
    "categories": [{"id": 1, "name": "square"}],
    "annotations": [{"id": row["image_id"], "area": 10000, "iscrowd": 0, **row} for row in rows],
}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert evaluate_coco(truth, rows, task="boundary").summary["AP"] > 0.99
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60_000


def problem(*pairs: tuple[np.ndarray, np.ndarray], crowd: bool = False) -> tuple[dict, list]:
    """Return ground truth and results with one image and one object per pair of masks."""

    def encoded(mask: np.ndarray) -> dict:
        found = rle.encode(np.asfortranarray(mask))
        return {"size": list(SIZE), "counts": found["counts"].decode()}

    truth = {
        "images": [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in range(len(pairs))],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "area": int(mask.sum()), "iscrowd": int(crowd),
             "segmentation": encoded(mask)}
            for number, (mask, _) in enumerate(pairs)
        ],
    }  # fmt: skip
    results = [
        {"image_id": number, "category_id": 1, "score": 0.9 - number / 10, "segmentation": encoded(mask)}
        for number, (_, mask) in enumerate(pairs)
    ]
    return truth, results


def test_shift_lowers_boundary_ap_more_than_mask_ap():
    """By hand: 40 x 30 pixels shifted by 1: the areas overlap by 29 / 31, the boundaries of 2 pixels by far less."""
    truth, found = square(5, 5, 45, 35), square(5, 6, 45, 36)
    data, results = problem((truth, found))
    ring, other = slow_boundary(truth, REACH), slow_boundary(found, REACH)
    overlap = (ring & other).sum() / (ring | other).sum()
    assert 0.5 < overlap < 0.6
    assert evaluate_coco(data, results, task="segm").summary["AP"] == pytest.approx(0.9)  # 0.50 .. 0.90 of 0.935
    assert evaluate_coco(data, results, task="boundary").summary["AP"] == pytest.approx(0.2)  # 0.50 and 0.55


def test_identical_masks_score_one():
    """By hand: by mask and by boundary."""
    data, results = problem((square(5, 5, 45, 45), square(5, 5, 45, 45)))
    assert evaluate_coco(data, results, task="boundary").summary["AP"] == pytest.approx(1.0)


def test_boundary_ap_of_thin_masks_equals_mask_ap():
    """Law: if every pixel is near the outline, boundary IoU is mask IoU."""
    data, results = problem((square(10, 10, 13, 50), square(10, 14, 13, 50)))
    scores = [evaluate_coco(data, results, task=task).summary for task in ("segm", "boundary")]
    assert scores[0] == scores[1]
    assert scores[0]["AP"] == pytest.approx(0.9)


def test_crowds_are_ignored_by_mask_overlap():
    """Oracle: the rule of the authors' code: a result inside a crowd is ignored, although its boundary is another."""
    data, results = problem((square(5, 5, 45, 45), square(20, 20, 30, 30)), crowd=True)
    thing, other = problem((square(5, 5, 45, 45), square(5, 5, 45, 45)))
    data["annotations"].append(thing["annotations"][0] | {"id": 9})
    results.append(other[0] | {"score": 0.1})
    assert evaluate_coco(data, results, task="boundary").summary["AP"] == pytest.approx(1.0)


class SlowBoundaries(COCOeval):
    """pycocotools' evaluation of masks, with its overlaps replaced by boundary overlaps of whole bitmaps."""

    def computeIoU(self, imgId, catId):  # the name of pycocotools' method
        overlaps = super().computeIoU(imgId, catId)
        detections = sorted(self._dts[imgId, catId], key=lambda detection: -detection["score"])
        for row, column in np.argwhere(np.array(overlaps) >= 0.5).tolist():
            pair = detections[row], self._gts[imgId, catId][column]
            if not pair[1]["iscrowd"]:
                ring, other = (_boundary(entry["segmentation"]) for entry in pair)
                overlaps[row, column] = min(overlaps[row, column], (ring & other).sum() / (ring | other).sum())
        return overlaps


def _boundary(segmentation: dict) -> np.ndarray:
    """Return the pixels of a mask for which a square of the boundary's width does not fit into the mask."""
    mask = rle.decode(segmentation)
    reach = max(1, round(0.02 * np.hypot(*mask.shape)))
    core = cv2.erode(np.pad(mask, reach), np.ones((2 * reach + 1,) * 2, np.uint8), borderValue=0)
    return (mask > 0) & (core[reach:-reach, reach:-reach] == 0)


def slow_tables(truth: dict, results: list) -> tuple[np.ndarray, np.ndarray]:
    inputs = build_coco_inputs(truth, results, "boundary")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = SlowBoundaries(*map(_index, (inputs.ground_truth, inputs.detections)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def random_problem(seed: int) -> tuple[dict, list]:
    """Return ragged masks on four images, a fifth of them crowds, with slightly moved results and equal scores."""
    rng = np.random.default_rng(seed)
    images = [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in range(4)]
    annotations, results = [], []
    for number in range(60):
        top, left, height, width = *rng.integers(0, 25, 2), *rng.integers(6, 35, 2)
        mask = square(top, left, top + height, left + width) & (rng.random(SIZE) < 0.98)
        place = {"image_id": int(rng.integers(4)), "category_id": int(rng.integers(1, 3))}
        shape = {"size": list(SIZE), "counts": rle.encode(np.asfortranarray(mask))["counts"].decode()}
        crowd = int(rng.random() < 0.2)
        annotations.append({"id": number, "area": int(mask.sum()), "iscrowd": crowd, "segmentation": shape, **place})
        for _ in range(rng.integers(0, 4)):
            moved = np.roll(mask, rng.integers(-1, 2, 2), axis=(0, 1))
            shape = {"size": list(SIZE), "counts": rle.encode(np.asfortranarray(moved))["counts"].decode()}
            results.append({"score": int(rng.integers(1, 200)) / 200, "segmentation": shape, **place})
    unique = {
        (row["image_id"], row["category_id"], row["score"], row["segmentation"]["counts"]): row for row in results
    }
    categories = [{"id": number, "name": f"class {number}"} for number in (1, 2)]
    return {"images": images, "categories": categories, "annotations": annotations}, list(unique.values())


# pycocotools 2.0.11 decodes in a way that numpy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("seed", range(4))
def test_tables_equal_pycocotools_with_slow_boundary_overlaps(seed):
    """Oracle: pycocotools with its overlaps replaced by those of whole bitmaps: every number, to the last bit."""
    truth, results = random_problem(seed)
    tables = evaluate_boundaries(build_coco_inputs(truth, results, "boundary"))
    expected = slow_tables(truth, results)
    assert all(np.array_equal(*pair) for pair in zip(tables, expected, strict=True))
    assert 0.05 < evaluate_coco(truth, results, task="boundary").summary["AP"] < 0.9


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.skipif(not FIXTURE.is_dir(), reason=f"{FIXTURE.name} is not beside the checkout")
def test_boundary_ap_on_coco_photos():
    """Law: boundaries match only where masks do, and the ground truth as its own result is perfect."""
    truth = json.loads((FIXTURE / "instances_val2014_100.json").read_text())
    results = json.loads((FIXTURE / "instances_val2014_fakesegm100_results.json").read_text())
    masks, boundaries = (evaluate_coco(truth, results, task=task).summary for task in ("segm", "boundary"))
    assert 0.1 < boundaries["AP"] < masks["AP"]
    assert boundaries["APs"] > 0.8 * masks["APs"]  # small objects are almost all boundary
    expected, _ = slow_tables(truth, results)
    assert np.array_equal(evaluate_boundaries(build_coco_inputs(truth, results, "boundary"))[0], expected)
