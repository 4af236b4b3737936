"""Detections on their way to a results file and a table: ids, boxes and masks as COCO has them, aligned numbers."""

import subprocess
import sys

import pytest
import torch

from vertebra.evaluation import Scores, evaluate_coco, format_scores, to_coco_results
from vertebra.formats import open_results, write_results
from vertebra.structures import Detections, RoIMasks


def test_detections_become_coco_results():
    """By hand: xyxy to xywh, labels to the file's ids, plain Python numbers; the detections are left as they are."""
    detections = Detections(
        torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.5, 0.0, 2.0, 1.0]], dtype=torch.float64),
        torch.tensor([1, 0]),
        torch.tensor([0.75, 0.5]),
    )
    assert to_coco_results(detections, 42, (7, 90)) == [
        {"image_id": 42, "category_id": 90, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.75},
        {"image_id": 42, "category_id": 7, "bbox": [0.5, 0.0, 1.5, 1.0], "score": 0.5},
    ]
    assert detections.boxes.tolist() == [[1.0, 2.0, 4.0, 8.0], [0.5, 0.0, 2.0, 1.0]]


def test_a_mask_is_scored_from_its_file(tmp_path):
    """By hand: a mask of 4 of the object's 6 pixels has IoU 2/3, so it matches from 0.50 to 0.65: AP 4/10."""
    masks = RoIMasks(torch.ones(1, 28, 28), (8, 10))
    detections = Detections(torch.tensor([[3.0, 2.0, 5.0, 4.0]]), torch.tensor([0]), torch.tensor([0.5]), masks)
    results = to_coco_results(detections, "street", [9])
    assert results[0]["segmentation"]["size"] == [8, 10]
    ground_truth = {
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
            assert evaluate_coco(ground_truth, results, engine, "segm").summary["AP"] == pytest.approx(0.4)


def random_detections(count: int, size: tuple[int, int], device: str) -> Detections:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([size[1], size[0]]) * 0.7
    boxes = torch.cat([corners, corners + 5 + torch.rand(count, 2, generator=generator) * 200], dim=1)
    grids = torch.rand(count, 28, 28, generator=generator)
    labels = torch.arange(count) % 3
    scores = torch.linspace(0.9, 0.1, count)
    return Detections(boxes, labels, scores, RoIMasks(grids, size)).to(device)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_masks_that_are_pasted_together_are_those_pasted_one_by_one(device):
    """Law: every row is the one that its detection alone gives, to the last character."""
    size = (3000, 2800)  # two masks fit the budget of pixels
    detections = random_detections(7, size, device)
    one_by_one = [to_coco_results(detections[index : index + 1], 1, (4, 5, 6))[0] for index in range(7)]
    assert to_coco_results(detections, 1, (4, 5, 6)) == one_by_one


def test_scores_are_aligned_and_null_is_a_dash():
    """By hand: a table of the numbers, columns of one width, ``-`` for what was not measured."""
    scores = Scores({"AP": 0.5, "APs": None}, {"cat": 1.0, "traffic light": None}, {"images": 12})
    assert format_scores(scores).splitlines() == [
        "metric   score  description",
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


def test_a_users_own_numbers_are_shown_without_a_description():
    """Symptom: a KeyError for the name of a metric that the package does not know."""
    assert format_scores(Scores({"my_error": 0.25, "AP": 0.5}, {}, {}), "counts").splitlines() == [
        "counts     score  description",
        "my_error  0.2500",
        "AP        0.5000  IoU 0.50:0.95",
    ]


def test_masks_on_a_large_photo_take_little_memory():
    """A law, in a process of its own: thirty masks on 12 million pixels grow it by less than eight of them would take
    as float32."""
    program = """
import resource, torch
from vertebra.evaluation import to_coco_results
from vertebra.structures import Detections, RoIMasks
corners = torch.rand(30, 2) * 2000
detections = Detections(
    torch.cat([corners, corners + 900], dim=1), torch.zeros(30, dtype=torch.int64), torch.ones(30),
    RoIMasks(torch.ones(30, 28, 28), (3000, 4000)),
)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = to_coco_results(detections, 1, [1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(rows))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kilobytes, rows = map(int, done.stdout.split())
    assert rows == 30
    assert kilobytes < 8 * 48_000
