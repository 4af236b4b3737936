"""COCO scores: published values, a slow loop, cases by hand and laws, through both engines."""

import copy
import json
import random
from pathlib import Path

import pytest

from vertebra.evaluation import evaluate_coco, format_scores, scores_as_json
from vertebra.formats import open_results, read_ground_truth, sort_results

from ..helpers.slow_coco_ap import slow_summary

ENGINES = ("hotcoco", "pycocotools")
FIXTURE = Path(__file__).parents[3] / "shared" / "data" / "coco_eval_100"
PUBLISHED = {
    "bbox": {"AP": 0.5045806987, "AP50": 0.6969727247, "AP75": 0.572981667},
    "segm": {"AP": 0.3195452759, "AP50": 0.5622883973, "AP75": 0.2989265341},
}


def annotation(number: int, image: int, category: int, box: list, **fields) -> dict:
    """Return one object of a COCO file."""
    entry = {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3]}
    return entry | {"iscrowd": 0} | fields


def detection(image: int | str, category: int, box: list, score: float) -> dict:
    """Return one COCO result."""
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def random_problem(seed: int) -> tuple[dict, list[dict]]:
    """Return five images with crowds, three classes, equal scores, and one image with 130 detections of a class."""
    rng = random.Random(seed)

    def box() -> list:
        side = rng.choice([12, 40, 70, 120])
        return [rng.randrange(200), rng.randrange(200), side + rng.randrange(8), side + rng.randrange(8)]

    def shifted(near: list) -> list:
        return [value + rng.randrange(-2, 3) for value in near]

    annotations = [
        annotation(number, rng.randrange(5), rng.choice([1, 7]), box(), iscrowd=int(rng.random() < 0.2))
        for number in range(1, 50)
    ]
    results = [
        detection(entry["image_id"], entry["category_id"], shifted(entry["bbox"]), rng.randrange(1, 8) / 8)
        for entry in annotations * 2
    ]
    results += [detection(rng.randrange(5), rng.choice([1, 7, 90]), box(), rng.randrange(1, 8) / 8) for _ in range(40)]
    results += [detection(0, 1, box(), rng.randrange(1, 100) / 100) for _ in range(130)]
    truth = {
        "images": [{"id": number} for number in range(5)],
        "annotations": annotations,
        "categories": [{"id": number, "name": f"class {number}"} for number in (1, 7, 90)],
    }
    return truth, list({json.dumps(result): result for result in results}.values())


def assert_equal_scores(first: dict, second: dict) -> None:
    """Check that two summaries are equal to ten digits, with None in the same places."""
    assert first == {name: None if value is None else pytest.approx(value, abs=1e-10) for name, value in second.items()}


def read_fixture(task: str) -> tuple[dict, list[dict]]:
    """Return the public example of 100 images; the test is skipped if it is absent."""
    if not FIXTURE.is_dir():
        pytest.skip(f"the fixture {FIXTURE.name} is missing")
    with open_results(FIXTURE / f"instances_val2014_fake{task}100_results.json") as results:
        return read_ground_truth(FIXTURE / "instances_val2014_100.json"), results


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("task", PUBLISHED)
def test_published_scores_of_the_coco_api(engine, task):
    """Oracle: the scores that the COCO API publishes for its example data, to ten digits."""
    summary = evaluate_coco(*read_fixture(task), engine, task).summary
    assert {name: summary[name] for name in PUBLISHED[task]} == pytest.approx(PUBLISHED[task], abs=5e-11)


@pytest.mark.parametrize("seed", range(3))
def test_engines_equal_a_slow_loop(seed):
    """docs/faults.md row 40. Oracle: a slow loop, on crowds, size ranges, limits on detections, equal scores and
    equal overlaps."""
    truth, results = random_problem(seed)
    expected = slow_summary(truth, results)
    for engine in ENGINES:
        assert_equal_scores(evaluate_coco(truth, results, engine).summary, expected)


def test_engines_agree_on_every_class():
    """Oracle: each engine is compared with the other, class by class."""
    truth, results = random_problem(4)
    first, second = (evaluate_coco(truth, results, engine) for engine in ENGINES)
    assert_equal_scores(first.per_class, second.per_class)
    assert first.per_class["class 90"] is None
    assert first.per_class["class 1"] > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_scores_of_two_objects_and_three_detections(engine):
    """By hand: two cats of 40 x 40; ranked false positive, true positive (IoU 0.8), true positive (IoU 1).

    Up to IoU 0.80 the true positives are at ranks 2 and 3: recall 1/2 at precision 1/2, recall 1 at 2/3, so 2/3 at
    every point once the curve is made monotonic. From IoU 0.85 only rank 3 is true: precision 1/3 at the 51 points up
    to recall 0.5.
    """
    truth = {
        "images": [{"id": 3}],
        "annotations": [annotation(1, 3, 5, [0, 0, 40, 40]), annotation(2, 3, 5, [100, 0, 40, 40])],
        "categories": [{"id": 5, "name": "cat"}],
    }
    results = [
        detection(3, 5, [0, 100, 40, 40], 0.9),
        detection(3, 5, [0, 0, 40, 32], 0.8),
        detection(3, 5, [100, 0, 40, 40], 0.7),
    ]
    scores = evaluate_coco(truth, results, engine)
    loose, strict = 2 / 3, 51 / 101 / 3
    expected = {
        "AP": (7 * loose + 3 * strict) / 10, "AP50": loose, "AP75": loose,
        "APs": None, "APm": (7 * loose + 3 * strict) / 10, "APl": None,
        "AR1": 0.0, "AR10": (7 * 1 + 3 * 0.5) / 10, "AR100": (7 * 1 + 3 * 0.5) / 10,
        "ARs": None, "ARm": (7 * 1 + 3 * 0.5) / 10, "ARl": None,
    }  # fmt: skip
    assert_equal_scores(scores.summary, expected)
    assert_equal_scores(scores.per_class, {"cat": expected["AP"]})


@pytest.mark.parametrize("engine", ENGINES)
def test_scores_do_not_depend_on_ids(engine):
    """docs/faults.md row 12. Law: annotation id 0, missing annotation ids, string image ids and huge category ids
    give the scores of plain numbers."""
    truth, results = random_problem(5)
    expected = evaluate_coco(truth, results, engine).summary
    for number, entry in enumerate(truth["annotations"]):
        entry["id"] = number
    assert evaluate_coco(truth, results, engine).summary == expected
    for entry in truth["annotations"]:
        del entry["id"]
    for entry in truth["images"]:
        entry["id"] = f"image {entry['id']}"
    for entry in truth["annotations"] + results:
        entry["image_id"] = f"image {entry['image_id']}"
        entry["category_id"] = {1: 0, 7: 2**40, 90: 2**41}[entry["category_id"]]
    for entry, number in zip(truth["categories"], (0, 2**40, 2**41), strict=True):
        entry["id"] = number
    assert evaluate_coco(truth, results, engine).summary == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_missing_area_and_iscrowd_have_defaults(engine):
    """Law: without crowds, and with the areas of boxes, the fields may be left out."""
    truth, results = random_problem(6)
    for entry in truth["annotations"]:
        entry["iscrowd"] = 0
    expected = evaluate_coco(truth, results, engine).summary
    for entry in truth["annotations"]:
        del entry["iscrowd"], entry["area"]
    assert evaluate_coco(truth, results, engine).summary == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_order_of_results_does_not_matter(engine):
    """docs/faults.md row 133. Law: shuffled results, some with equal scores, give the same digits once they are
    sorted."""
    truth, results = random_problem(7)
    expected = evaluate_coco(truth, sort_results(results), engine)
    for seed in range(5):
        shuffled = random.Random(seed).sample(results, len(results))
        assert evaluate_coco(truth, sort_results(shuffled), engine) == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_no_detections_score_zero(engine, task):
    """docs/faults.md row 124. By hand: AP is 0 for every class and size with objects."""
    square = annotation(1, 1, 1, [0, 0, 10, 10], segmentation=[[0, 0, 10, 0, 10, 10, 0, 10]])
    truth = {
        "images": [{"id": 1, "height": 20, "width": 20}],
        "annotations": [square],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    scores = evaluate_coco(truth, [], engine, task)
    unmeasured = {"APm", "APl", "ARm", "ARl"}
    assert scores.summary == {name: None if name in unmeasured else 0.0 for name in scores.summary}
    assert scores.per_class == {"cat": 0.0, "dog": None}


@pytest.mark.parametrize("engine", ENGINES)
def test_no_ground_truth_is_null(engine):
    """docs/faults.md row 125. By hand: without objects there is no score; JSON has null."""
    truth, results = random_problem(8)
    scores = evaluate_coco(truth | {"annotations": []}, results, engine)
    assert set(scores.summary.values()) == set(scores.per_class.values()) == {None}
    assert json.loads(json.dumps(scores.summary))["AP"] is None


@pytest.mark.parametrize("engine", ENGINES)
def test_evaluation_is_silent_and_keeps_its_inputs(engine, capfd):
    """Law: nothing is printed, and the inputs are not changed."""
    truth, results = random_problem(9)
    before = copy.deepcopy((truth, results))
    evaluate_coco(truth, results, engine)
    assert (truth, results) == before
    assert capfd.readouterr() == ("", "")


def test_detections_beyond_the_limit_are_counted():
    """docs/faults.md row 132. By hand: 102 detections of a class in one of two images, where COCO uses 100."""
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [annotation(1, 1, 1, [0, 0, 10, 10])],
        "categories": [{"id": 1, "name": "cat"}],
    }
    results = [detection(1, 1, [50, 50, 5, 5], 0.9 - 0.001 * place) for place in range(101)]
    results.append(detection(1, 1, [0, 0, 10, 10], 0.1))
    scores = evaluate_coco(truth, results)
    assert scores.summary["AP"] == 0.0
    assert scores.counts == {
        "images": 2, "images_without_detections": 1, "detections": 102, "detections_over_limit": 2,
        "detections_without_objects": 0,
    }  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_limit_of_detections_can_be_chosen(engine):
    """docs/faults.md row 132. By hand: the 102nd detection is right; a limit of 102 finds it, one of 101 does not."""
    truth = {
        "images": [{"id": 1}],
        "annotations": [annotation(1, 1, 1, [0, 0, 10, 10])],
        "categories": [{"id": 1, "name": "cat"}],
    }
    results = [detection(1, 1, [50, 50, 5, 5], 0.9 - 0.001 * place) for place in range(101)]
    results.append(detection(1, 1, [0, 0, 10, 10], 0.1))
    found, missed = (evaluate_coco(truth, results, engine, max_detections=limit) for limit in (102, 101))
    assert found.summary["AR102"] == 1 and found.summary["AP"] == pytest.approx(1 / 102)
    assert missed.summary["AR101"] == missed.summary["AP"] == 0
    assert found.counts["detections_over_limit"] == 0
    assert "AR102   1.0000  102 detections per image and class" in format_scores(found)
    with pytest.raises(ValueError, match="max_detections must be above 10"):
        evaluate_coco(truth, results, engine, max_detections=10)


@pytest.mark.parametrize("engine", ENGINES)
def test_limits_equal_pycocotools(engine):
    """Oracle: pycocotools with its own maxDets, on boxes and masks at random."""
    truth, results = random_problem(3)
    expected = evaluate_coco(truth, results, "pycocotools", max_detections=11).summary
    assert evaluate_coco(truth, results, engine, max_detections=11).summary == expected


def test_objects_of_classes_are_counted_and_results_of_classes_without_objects():
    """By hand: two cats, a crowd of cats and no dog; the results for dogs change no metric, but are counted."""
    truth = {
        "images": [{"id": 1}],
        "annotations": [
            annotation(1, 1, 1, [0, 0, 10, 10]),
            annotation(2, 1, 1, [20, 0, 10, 10]),
            annotation(3, 1, 1, [40, 0, 10, 10], iscrowd=1),
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    results = [detection(1, 1, [0, 0, 10, 10], 0.9), detection(1, 2, [0, 0, 10, 10], 0.9)]
    scores = evaluate_coco(truth, results)
    assert scores.objects == {"cat": 2, "dog": 0} and scores.counts["detections_without_objects"] == 1
    assert "class      AP  objects\ncat    0.5050        2\ndog         -        0" in format_scores(scores)
    assert scores_as_json({"bbox": scores})["objects"] == {"bbox": {"cat": 2, "dog": 0}}
