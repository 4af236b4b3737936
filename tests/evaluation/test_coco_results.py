"""Detections on their way to a file and a table: what is written is what was found, and it reads back the same."""

import random
import subprocess
import sys

import pytest
import torch

from vertebra.evaluation import Scores, evaluate_coco, format_scores, to_coco_results
from vertebra.formats import open_results, sort_results, write_results
from vertebra.structures import Detections, RoIMasks

TRUTH = {
    "images": [{"id": 1}, {"id": 2}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [0.0, 0.0, 9.0, 9.0]}],
    "categories": [{"id": 7, "name": "cat"}],
}


def test_detections_become_coco_results():
    """By hand: xyxy to xywh, labels to the file's ids, plain Python numbers."""
    found = Detections(
        torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.5, 0.0, 2.0, 1.0]], dtype=torch.float64),
        torch.tensor([1, 0]),
        torch.tensor([0.75, 0.5]),
    )
    assert to_coco_results(found, 42, (7, 90)) == [
        {"image_id": 42, "category_id": 90, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.75},
        {"image_id": 42, "category_id": 7, "bbox": [0.5, 0.0, 1.5, 1.0], "score": 0.5},
    ]
    assert found.boxes.tolist() == [[1.0, 2.0, 4.0, 8.0], [0.5, 0.0, 2.0, 1.0]]


def test_masks_come_back_as_they_went(tmp_path):
    """By hand: a mask of 4 of the truth's 6 pixels has IoU 2/3, so it is found at 0.50 to 0.65: AP 4/10."""
    masks = RoIMasks(torch.ones(1, 28, 28), (8, 10))
    found = Detections(torch.tensor([[3.0, 2.0, 5.0, 4.0]]), torch.tensor([0]), torch.tensor([0.5]), masks)
    results = to_coco_results(found, "street", [9])
    assert results[0]["segmentation"]["size"] == [8, 10]
    truth = {
        "images": [{"id": "street", "height": 8, "width": 10}],
        "annotations": [
            {
                "image_id": "street", "category_id": 9, "bbox": [3, 2, 3, 2], "area": 6,
                "segmentation": [[3, 2, 6, 2, 6, 4, 3, 4]],
            },
        ],
        "categories": [{"id": 9, "name": "cat"}],
    }  # fmt: skip
    write_results(tmp_path / "results.json", results)
    for engine in ("hotcoco", "pycocotools"):
        with open_results(tmp_path / "results.json") as results:
            assert evaluate_coco(truth, results, engine, "segm").summary["AP"] == pytest.approx(0.4)


def test_results_round_trip_to_the_last_digit(tmp_path):
    """A law: what is read is what was written, in one order whatever the order it came in, byte for byte."""
    rng = random.Random(0)
    results = [
        {
            "image_id": rng.choice([1, 2]),
            "category_id": 7,
            "bbox": [rng.random() / 3, rng.random() / 7, 9 + rng.random(), 9 - rng.random()],
            "score": rng.randrange(1, 9) / 9,
        }
        for _ in range(40)
    ]
    write_results(tmp_path / "first.json", results)
    write_results(tmp_path / "second.json", rng.sample(results, len(results)))
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    with open_results(tmp_path / "first.json") as back:
        assert back == sort_results(results)
        assert evaluate_coco(TRUTH, back) == evaluate_coco(TRUTH, sort_results(results))


def test_results_are_sorted_by_image_score_category_and_box():
    """By hand: each key decides where those before it are equal."""
    ordered = [
        {"image_id": image, "category_id": category, "bbox": [left, 0.0, 1.0, 1.0], "score": score}
        for image, score, category, left in [
            (1, 0.2, 9, 5.0), (2, 0.6, 8, 4.0), (2, 0.55, 1, 3.0), (2, 0.55, 2, 1.0), (2, 0.55, 2, 2.0),
        ]
    ]  # fmt: skip
    for seed in range(5):
        assert sort_results(random.Random(seed).sample(ordered, len(ordered))) == ordered


def test_no_results_round_trip(tmp_path):
    """A law: an empty list is a file of results too."""
    write_results(tmp_path / "none.json", [])
    with open_results(tmp_path / "none.json") as back:
        assert back == []


def test_scores_are_aligned_and_null_is_a_dash():
    """By hand: a table of the numbers, columns of one width, ``-`` for what was not measured."""
    scores = Scores({"AP": 0.5, "APs": None}, {"cat": 1.0, "traffic light": None}, {"images": 12})
    assert format_scores(scores).splitlines() == [
        "metric   score  over",
        "AP      0.5000  IoU 0.50:0.95",
        "APs          -  area below 32 x 32",
        "",
        "class              AP",
        "cat            1.0000",
        "traffic light       -",
        "",
        "count of  number",
        "images        12",
    ]


def test_masks_on_a_large_photo_take_little_memory():
    """A law, in a process of its own: thirty masks on 12 million pixels grow it by less than eight of them would take
    as float32."""
    program = """
import resource, torch
from vertebra.evaluation import to_coco_results
from vertebra.structures import Detections, RoIMasks
corners = torch.rand(30, 2) * 2000
found = Detections(
    torch.cat([corners, corners + 900], dim=1), torch.zeros(30, dtype=torch.int64), torch.ones(30),
    RoIMasks(torch.ones(30, 28, 28), (3000, 4000)),
)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = to_coco_results(found, 1, [1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(rows))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kilobytes, rows = map(int, done.stdout.split())
    assert rows == 30
    assert kilobytes < 8 * 48_000
