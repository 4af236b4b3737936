"""Scores of keypoints against pycocotools, and the checks of ground truth and results."""

import contextlib
import copy
import io
import math
import re

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from vertebra.evaluation import evaluate_coco, format_scores, to_coco_results
from vertebra.evaluation.keypoints import COCO_SIGMAS, DEFAULT_SIGMA, keypoint_sigmas
from vertebra.formats import sort_results
from vertebra.structures import COCO_KEYPOINTS, DataError, Detections

ENGINES = ("hotcoco", "pycocotools")
METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
"""The order of pycocotools' ten numbers."""


def random_data(names=COCO_KEYPOINTS, seed: int = 0) -> tuple[dict, list[dict]]:
    """Return ground truth of 8 images, some objects of it crowds or without labeled keypoints, and noisy results."""
    generator = np.random.default_rng(seed)
    annotations, results = [], []
    for number in range(32):
        image_id = 5 * (number % 8) + 3
        left, top, width, height = generator.uniform((0, 0, 15, 15), (200, 200, 220, 220)).tolist()
        points = np.stack(
            [
                generator.uniform(left, left + width, len(names)),
                generator.uniform(top, top + height, len(names)),
                generator.integers(0, 3, len(names)),
            ],
            axis=1,
        )
        points[(points[:, 2] == 0) | (number % 7 == 3)] = 0
        shape = {"bbox": [left, top, width, height], "area": 0.6 * width * height}
        keypoints = {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
        ids = {"id": number, "image_id": image_id, "category_id": 7, "iscrowd": int(number % 11 == 5)}
        annotations.append({**ids, **shape, **keypoints})
        for spread in (2, 6, 20):
            guess = points + generator.normal(0, spread, points.shape)
            guess[:, 2] = 1
            result = {"image_id": image_id, "category_id": 7, "score": round(generator.random(), 2)}
            results.append({**result, "keypoints": guess.ravel().tolist()})
    images = [{"id": 5 * number + 3, "height": 500, "width": 500} for number in range(8)]
    categories = [{"id": 7, "name": "person", "keypoints": list(names)}]
    return {"images": images, "annotations": annotations, "categories": categories}, sort_results(results)


def reference(truth: dict, results: list[dict], sigmas=None) -> dict[str, float]:
    """Return the ten numbers of pycocotools, called as its documentation does."""
    truth = copy.deepcopy(truth)
    for annotation in truth["annotations"]:
        annotation["id"] += 1  # pycocotools takes the id 0 for no match
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, evaluation.stats.tolist(), strict=True))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_pycocotools(engine, seed):
    """Oracle: the ten numbers of pycocotools, to the last digit; 20 detections per image at most."""
    truth, results = random_data(seed=seed)
    scores = evaluate_coco(truth, results, engine, "keypoints")
    assert scores.summary == reference(truth, results)
    assert 0.1 < scores.summary["AP"] < 0.9 and tuple(scores.summary) == METRICS
    assert scores.per_class == {"person": scores.summary["AP"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_custom_skeleton_uses_its_sigmas(engine):
    """Oracle: pycocotools with the sigmas given, and with COCO's value or the mean for the others."""
    names = ("nose", "tail", "left_wing")
    truth, results = random_data(names, seed=4)
    sigmas = [COCO_SIGMAS["nose"], 0.2, DEFAULT_SIGMA]
    found = evaluate_coco(truth, results, engine, "keypoints", {"tail": 0.2})
    assert found.summary == reference(truth, results, sigmas)
    assert evaluate_coco(truth, results, engine, "keypoints").summary != found.summary
    with pytest.raises(DataError, match="there is no keypoint 'tial' in the ground truth"):
        evaluate_coco(truth, results, engine, "keypoints", {"tial": 0.2})


def test_default_sigmas_are_those_of_pycocotools():
    """Oracle: pycocotools' constants, by the name of each keypoint."""
    assert np.allclose(keypoint_sigmas(COCO_KEYPOINTS, {}), Params("keypoints").kpt_oks_sigmas, rtol=0, atol=1e-15)
    assert pytest.approx(0.0669, abs=1e-4) == DEFAULT_SIGMA


def one_object(names=("nose", "tail")) -> tuple[dict, dict]:
    """Return ground truth of an object of 100 x 100 pixels with two keypoints, and a perfect result."""
    annotation = {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 100], "iscrowd": 0,
        "keypoints": [10, 10, 2, 50, 50, 1], "num_keypoints": 2,
    }  # fmt: skip
    truth = {
        "images": [{"id": 1}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "bird", "keypoints": list(names)}],
    }
    return truth, {"image_id": 1, "category_id": 1, "score": 0.5, "keypoints": [10, 10, 1, 50, 50, 1]}


def test_similarity_of_a_keypoint_at_twice_its_sigma():
    """By hand: sigmas of 0.1 and an area of 100 x 100 put exp(-1/2) = 0.607 at 20 pixels; with the other keypoint
    exact, OKS is 0.80: a match up to the threshold 0.80, that is at seven of ten."""
    truth, result = one_object()
    result["keypoints"][0] = 30
    sigmas = {"nose": 0.1, "tail": 0.1}
    scores = evaluate_coco(truth, [result], "pycocotools", "keypoints", sigmas)
    assert scores.summary["AP"] == pytest.approx(0.7)
    assert scores.per_keypoint == {"nose": 1.0, "tail": 1.0}


def test_keypoints_are_found_if_their_similarity_is_a_half():
    """By hand: with a sigma of 0.1 the similarity is 0.5 at 20 sqrt(2 ln 2) = 23.55 pixels. A second object that no
    detection matches is missed with both keypoints, one of which is not labeled."""
    truth, result = one_object()
    sigmas = {"nose": 0.1, "tail": 0.1}
    limit = 20 * math.sqrt(2 * math.log(2))
    for distance, found in ((limit - 0.01, 1.0), (limit + 0.01, 0.0)):
        result["keypoints"][0] = 10 + distance
        assert evaluate_coco(truth, [result], task="keypoints", sigmas=sigmas).per_keypoint["nose"] == found
    missed = {**truth["annotations"][0], "id": 2, "keypoints": [900, 900, 2, 0, 0, 0], "num_keypoints": 1}
    truth["annotations"].append(missed)
    result["keypoints"] = [10, 10, 1, 50, 50, 1]
    scores = evaluate_coco(truth, [result], task="keypoints", sigmas=sigmas)
    assert scores.per_keypoint == {"nose": 0.5, "tail": 1.0}
    table = format_scores(scores).partition("keypoint")[2].split()
    assert table[:5] == ["found", "nose", "0.5000", "tail", "1.0000"]


def test_no_detections_and_no_ground_truth():
    """docs/faults.md rows 124, 125. By hand: 0 without detections, None where no keypoint is labeled."""
    truth, result = one_object()
    scores = evaluate_coco(truth, [], task="keypoints")
    assert scores.summary["AP"] == 0 and scores.per_keypoint == {"nose": 0.0, "tail": 0.0}
    truth["annotations"] = []
    scores = evaluate_coco(truth, [result], task="keypoints")
    assert scores.summary["AP"] is None and scores.per_keypoint == {"nose": None, "tail": None}


def test_missing_keypoints_are_unlabeled():
    """By hand: an object without keypoints is ignored, as pycocotools ignores one with num_keypoints 0."""
    truth, result = one_object()
    truth["annotations"].append({"id": 2, "image_id": 1, "category_id": 1, "bbox": [300, 0, 10, 10]})
    for engine in ENGINES:
        assert evaluate_coco(truth, [result], engine, "keypoints").summary["AP"] == pytest.approx(1)


def test_classes_without_keypoints_are_left_out():
    """By hand: annotations and results of a class without keypoints are neither scored nor checked for keypoints."""
    truth, result = one_object()
    truth["categories"].append({"id": 2, "name": "stone"})
    truth["annotations"].append({"id": 3, "image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9]})
    box = {"image_id": 1, "category_id": 2, "score": 0.9, "bbox": [0, 0, 9, 9]}
    scores = evaluate_coco(truth, [box, result], task="keypoints")
    assert scores.per_class == {"bird": pytest.approx(1)} and scores.counts["detections"] == 1


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        (None, "has no bbox"),
        ([1, 2], "not a list of x, y and score"),
        ("1 2 3", "not a list of x, y and score"),
        ([1, 2, None] * 2, "not a list of x, y and score"),
        ([1, 2, math.nan] * 2, "keypoints that are not finite"),
        ([1, -1e300, 1] * 2, r"keypoints beyond 2\^63"),
        ([1, 2, 0.5], "has 1 keypoints, but the ground truth has 2"),
    ],
)
def test_bad_results_are_refused(keypoints, message):
    """docs/faults.md row 152. By hand: exit code 3 with the entry."""
    truth, result = one_object()
    changed = {key: value for key, value in (result | {"keypoints": keypoints}).items() if value is not None}
    with pytest.raises(DataError, match=rf"entry 1 {message}" if keypoints is None else f"entry 1 .*{message}"):
        evaluate_coco(truth, [result, changed], task="keypoints")


def test_results_of_boxes_alone_cannot_be_scored_as_keypoints():
    """By hand: exit code 3 with the entry."""
    truth, result = one_object()
    box = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 1, 1]}
    with pytest.raises(DataError, match="entry 1 has 0 keypoints, but the ground truth has 2"):
        evaluate_coco(truth, [result, box], task="keypoints")


def test_ground_truth_is_checked():
    """docs/faults.md rows 149, 150. By hand: exit code 3 with the annotation."""
    truth, result = one_object()
    truth["annotations"][0]["keypoints"] = [1, 2, 3]
    with pytest.raises(DataError, match=r"malformed-keypoints.*ann_id=1.*3 numbers"):
        evaluate_coco(truth, [result], task="keypoints")
    del truth["categories"][0]["keypoints"]
    with pytest.raises(DataError, match=r"no-keypoints: .*no category of the ground truth has keypoints"):
        evaluate_coco(truth, [result], task="keypoints")


@pytest.mark.parametrize("names", [5, "ab", {"a": 1}, [["a"], ["b"]], ["a", "a"]])
def test_keypoints_of_a_category_that_are_no_list_of_names_are_refused(names):
    """docs/faults.md row 149. By hand: exit code 3 with what was found, as when a data set is opened."""
    truth, result = one_object()
    truth["categories"][0]["keypoints"] = names
    with pytest.raises(DataError, match=f"bad-category: keypoints need unique names; found {re.escape(repr(names))}"):
        evaluate_coco(truth, [result], task="keypoints")


def test_results_are_in_the_frame_of_the_file():
    """By hand: a flat list of x, y and score of each keypoint; the offset of the data set is subtracted again."""
    keypoints = torch.tensor([[[10.5, 20.5, 0.25], [30.0, 40.0, 0.5]]])
    detections = Detections(torch.ones(1, 4).cumsum(1), torch.tensor([0]), torch.tensor([0.5]), keypoints=keypoints)
    (row,) = to_coco_results(detections, 4, (7,), keypoint_offset=0.5)
    assert row["keypoints"] == [10.0, 20.0, 0.25, 29.5, 39.5, 0.5]
    assert torch.equal(detections.keypoints, keypoints) and detections.keypoints[0, 0, 0] == 10.5
