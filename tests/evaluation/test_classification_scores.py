"""Accuracy: by hand, by an independent slow loop, and what results that cannot be scored get."""

import random

import pytest
import torch

from vertebra.evaluation import evaluate_classification, format_scores, to_class_results
from vertebra.formats import sort_results, write_results
from vertebra.structures import Classification, DataError

NAMES = ("cat", "dog", "cow")


def row(image_id, *labels: int, **changes) -> dict:
    """A result with falling scores."""
    return {
        "image_id": image_id,
        "labels": list(labels),
        "scores": [0.5 - place / 10 for place in range(len(labels))],
    } | (changes)


def test_a_classification_becomes_a_result():
    """By hand: plain Python numbers, one row an image."""
    found = Classification(torch.tensor([2, 0]), torch.tensor([0.75, 0.25]))
    assert to_class_results(found, "a.jpg") == [{"image_id": "a.jpg", "labels": [2, 0], "scores": [0.75, 0.25]}]


def test_accuracies_by_hand():
    """Four images: two right, one at second place, one without a result; no cow to find."""
    truth = {"a": 0, "b": 0, "c": 1, "d": 1}
    scores = evaluate_classification(truth, [row("c", 1, 0, 2), row("a", 0, 1, 2), row("b", 2, 0, 1)], NAMES)
    assert scores.summary == {"top1": 0.5, "top5": 0.75}
    assert scores.per_class == {"cat": 0.5, "dog": 0.5, "cow": None}
    assert scores.counts == {"images": 4, "images_without_result": 1}


def test_accuracies_by_a_slow_loop():
    """Oracle: a slow loop counted image by image with a rank of the true label, on 300 random results of 12 classes."""
    generator = random.Random(0)
    names = [f"class {label}" for label in range(12)]
    truth = {number: generator.randrange(11) for number in range(300)}
    results = [row(number, *generator.sample(range(12), 5)) for number in truth]
    generator.shuffle(results)
    hits, of_class = {1: 0, 5: 0}, {name: [] for name in names}
    for result in results:
        true = truth[result["image_id"]]
        rank = next((place for place, label in enumerate(result["labels"], start=1) if label == true), 99)
        for limit in hits:
            hits[limit] += rank <= limit
        of_class[names[true]].append(rank == 1)
    scores = evaluate_classification(truth, results, names)
    assert scores.summary == pytest.approx({"top1": hits[1] / 300, "top5": hits[5] / 300})
    assert scores.per_class == {name: sum(own) / len(own) if own else None for name, own in of_class.items()}
    assert scores.per_class["class 11"] is None


def test_five_guesses_are_not_measured_by_fewer():
    """By hand: of six classes two named are too few; of three classes three are all."""
    assert evaluate_classification({1: 0}, [row(1, 2, 0)], "abcdef").summary == {"top1": 0.0, "top5": None}
    assert evaluate_classification({1: 0}, [row(1, 2, 1, 0)], NAMES).summary == {"top1": 0.0, "top5": 1.0}


def test_no_results_and_no_images():
    """docs/faults.md rows 124, 125: nothing predicted is 0, nothing to predict is null."""
    assert evaluate_classification({1: 0}, [], NAMES).summary == {"top1": 0.0, "top5": 0.0}
    assert evaluate_classification({}, [], NAMES).summary == {"top1": None, "top5": None}


# name: (results, case, what the line says)
BAD = {
    "no scores": ([{"image_id": 1, "labels": [0]}], "bad-results", "entry 0 has no scores"),
    "unknown image": ([row(1, 0), row(9, 0)], "unknown-image", "entry 1 is about image 9"),
    "id as text": ([row("1", 0)], "image-id-type", "image id '1', type mismatch: str, where the ground truth has int"),
    "id as truth value": ([row(True, 0)], "image-id-type", "image id True, type mismatch: bool"),
    "id as a list": ([row([1], 0)], "image-id-type", r"image id \[1\], type mismatch: list"),
    "twice": ([row(1, 0), row(1, 1)], "duplicate-result", "entry 1 is the second result of its image"),
    "no labels": ([row(1)], "bad-label", "not a list of integers"),
    "label as a fraction": ([row(1, 0.5)], "bad-label", "not a list of integers"),
    "label out of range": ([row(1, 3)], "bad-label", r"not distinct in 0\.\.2"),
    "negative label": ([row(1, -1)], "bad-label", r"not distinct in 0\.\.2"),
    "a label twice": ([row(1, 1, 1)], "bad-label", "not distinct"),
    "NaN": ([row(1, 0, scores=[float("nan")])], "bad-score", "not a list of finite numbers"),
    "score as text": ([row(1, 0, scores=["1"])], "bad-score", "not a list of finite numbers"),
    "a score too few": ([row(1, 0, 1, scores=[0.5])], "bad-score", "one per label"),
    "worst first": ([row(1, 0, 1, scores=[0.2, 0.5])], "bad-score", "in falling order"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_result_that_cannot_be_scored_is_refused(name):
    """docs/faults.md rows 126, 128, 129, 131: exit code 3, naming the entry."""
    results, case, message = BAD[name]
    with pytest.raises(DataError, match=message) as caught:
        evaluate_classification({1: 0, 2: 1}, results, NAMES)
    assert caught.value.exit_code == 3 and caught.value.case == case


def test_results_are_sorted_and_written_as_those_of_boxes(tmp_path):
    """By hand: by image, numbers before text, a line each."""
    results = [row("b", 0), row(2, 1), row("a", 2), row(1, 0)]
    assert [result["image_id"] for result in sort_results(results)] == [1, 2, "a", "b"]
    write_results(tmp_path / "results.json", results)
    assert (tmp_path / "results.json").read_text().count("\n") == 4


def test_the_table_by_hand():
    """Aligned, with a dash where there was nothing to find; of very many classes the worst."""
    scores = evaluate_classification({1: 0, 2: 1}, [row(1, 0, 1, 2), row(2, 0, 1, 2)], NAMES)
    assert format_scores(scores).splitlines() == [
        "metric   score  description",
        "top1    0.5000  the most likely class is correct",
        "top5    1.0000  one of the five most likely classes is correct",
        "",
        "class    top1",
        "cat    1.0000",
        "dog    0.0000",
        "cow         -",
        "",
        "count of               number",
        "images                      2",
        "images without result       0",
    ]
    many = [f"class {label}" for label in range(300)]
    truth = {label: label for label in range(300)}
    results = [row(label, label if label % 3 else 0) for label in range(300)]
    lines = format_scores(evaluate_classification(truth, results, many)).splitlines()
    shown = [line for line in lines if line.startswith("class ")]
    assert len(shown) == 101 and sum(line.endswith("0.0000") for line in shown) == 99


def test_of_many_classes_those_without_images_are_not_the_worst():
    """By hand: of 300 classes 150 have images; the hundred shown are of those."""
    truth = {label: label for label in range(150)}
    results = [row(label, label) for label in truth]
    many = [f"class {label}" for label in range(300)]
    lines = format_scores(evaluate_classification(truth, results, many)).splitlines()
    assert sum(line.startswith("class ") and line.endswith("1.0000") for line in lines) == 100
