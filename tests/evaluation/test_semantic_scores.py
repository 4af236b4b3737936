"""Scores of maps of classes: a slow loop over pixels, real and generated maps, cases by hand, and bad rows."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.evaluation import ConfusionMatrix, evaluate_semantic, format_scores, to_semantic_results
from vertebra.formats import sort_results, write_results
from vertebra.structures import DataError

CAMVID = Path(__file__).parents[3] / "shared" / "data" / "camvid"
NAMES, IDS = ("sky", "road", "car"), (10, 20, 30)


def rows(labels, image_id=1, category_ids=IDS) -> list[dict]:
    """The result of a map."""
    return to_semantic_results(torch.as_tensor(np.asarray(labels, np.uint8)), image_id, category_ids)


def random_maps(generator: np.random.Generator, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A truth in blocks with some 255, and a prediction that is right in most places; one class is nowhere."""
    blocks = generator.integers(0, num_classes - 1, (5, 7))
    truth = np.kron(blocks, np.ones((6, 8))).astype(np.uint8)
    predicted = np.where(
        generator.random(truth.shape) < 0.3, generator.integers(0, num_classes - 1, truth.shape), truth
    )
    truth[generator.random(truth.shape) < 0.1] = 255
    return truth, predicted.astype(np.uint8)


def slow_scores(pairs: list, num_classes: int) -> tuple[dict, list]:
    """Pixel by pixel: for each class the pixels in both, in the truth, in either."""
    both, true, either = ([0] * num_classes for _ in range(3))
    for truth, predicted in pairs:
        for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if t == 255:
                continue
            true[t] += 1
            both[t] += t == p
            either[t] += 1
            if p not in (t, 255):
                either[p] += 1
    ious = [b / e if e else None for b, e in zip(both, either, strict=True)]
    accuracies = [b / t for b, t in zip(both, true, strict=True) if t]
    measured = [iou for iou in ious if iou is not None]
    summary = {
        "mIoU": sum(measured) / len(measured),
        "pixel_accuracy": sum(both) / sum(true),
        "mean_accuracy": sum(accuracies) / len(accuracies),
        "frequency_weighted_iou": sum(t / sum(true) * (iou or 0) for t, iou in zip(true, ious, strict=True)),
    }
    return summary, ious


@pytest.mark.parametrize("num_classes", [2, 5, 21])
def test_a_slow_loop(num_classes):
    """Oracle: a slow loop on generated maps of several images, from rows back to the numbers."""
    generator = np.random.default_rng(num_classes)
    pairs = [random_maps(generator, num_classes) for _ in range(4)]
    names = [f"class {label}" for label in range(num_classes)]
    results = [row for image, (_, predicted) in enumerate(pairs) for row in rows(predicted, image, range(num_classes))]
    random.Random(0).shuffle(results)
    scores = evaluate_semantic(
        {image: truth for image, (truth, _) in enumerate(pairs)}, results, names, range(num_classes)
    )
    summary, ious = slow_scores(pairs, num_classes)
    assert scores.summary == pytest.approx(summary, abs=1e-12)
    assert list(scores.per_class.values()) == [None if iou is None else pytest.approx(iou) for iou in ious]
    assert scores.per_class[names[-1]] is None


def test_a_slow_loop_on_real_maps():
    """Oracle: a slow loop on CamVid's street scenes: each map against that of the scene before it."""
    if not CAMVID.is_dir():
        pytest.skip("the folder camvid is not here")
    paths = sorted((CAMVID / "SegmentationClass").glob("*.png"))[:3]
    maps = [np.array(Image.open(path)) for path in paths]
    pairs = list(zip(maps[1:], [np.where(each == 255, 0, each).astype(np.uint8) for each in maps[:-1]], strict=True))
    names, ids = [f"class {label}" for label in range(11)], range(100, 111)
    results = [row for image, (_, predicted) in enumerate(pairs) for row in rows(predicted, image, ids)]
    scores = evaluate_semantic({image: truth for image, (truth, _) in enumerate(pairs)}, results, names, ids)
    summary, ious = slow_scores(pairs, 11)
    assert scores.summary == pytest.approx(summary, abs=1e-12)
    assert list(scores.per_class.values()) == [None if iou is None else pytest.approx(iou) for iou in ious]


def test_numbers_by_hand():
    """Eight pixels, one of them ignored. Sky: 2 of 3 found, and once in place of road: IoU 2/4. Road: 3 of 4: 3/5,
    since one sky is taken for it. No car anywhere. torchvision's references define all four so."""
    truth = np.array([[0, 0, 0, 255], [1, 1, 1, 1]], np.uint8)
    predicted = [[0, 0, 1, 2], [1, 1, 1, 0]]
    scores = evaluate_semantic({1: truth}, rows(predicted), NAMES, IDS)
    assert scores.per_class == {"sky": 0.5, "road": 0.6, "car": None}
    assert scores.summary == {
        "mIoU": pytest.approx(0.55),
        "pixel_accuracy": pytest.approx(5 / 7),
        "mean_accuracy": pytest.approx((2 / 3 + 3 / 4) / 2),
        "frequency_weighted_iou": pytest.approx(3 / 7 * 0.5 + 4 / 7 * 0.6),
    }
    assert scores.counts == {
        "images": 1, "images_without_result": 0, "pixels": 7, "pixels_without_prediction": 0, "ignored_pixels": 1,
    }  # fmt: skip


def test_a_class_that_is_only_predicted_counts_as_zero():
    """mmsegmentation's convention, by hand: a class nowhere in the truth but predicted has IoU 0; accuracy knows only
    classes of the truth."""
    scores = evaluate_semantic({1: np.zeros((1, 4), np.uint8)}, rows([[0, 0, 0, 2]]), NAMES, IDS)
    assert scores.per_class == {"sky": 0.75, "road": None, "car": 0.0}
    assert scores.summary["mIoU"] == pytest.approx(0.375) and scores.summary["mean_accuracy"] == 0.75


def test_pixels_and_images_without_a_prediction_are_misses():
    """docs/faults.md row 135, by hand: half an image has no row, another image none at all; nothing else is charged for
    it."""
    truth = {"a": np.zeros((2, 4), np.uint8), "b": np.ones((2, 4), np.uint8)}
    results = [row for row in rows([[0, 0, 1, 1]] * 2, "a") if row["category_id"] == 10]
    scores = evaluate_semantic(truth, results, NAMES, IDS)
    assert scores.per_class == {"sky": 0.5, "road": 0.0, "car": None} and scores.summary["pixel_accuracy"] == 0.25
    assert scores.counts["images_without_result"] == 1 and scores.counts["pixels_without_prediction"] == 12


def test_no_results_and_nothing_to_find():
    """docs/faults.md rows 124, 125: nothing predicted is 0, nothing to predict is null."""
    truth = np.zeros((2, 3), np.uint8)
    assert set(evaluate_semantic({1: truth}, [], NAMES, IDS).summary.values()) == {0.0}
    scores = evaluate_semantic({1: truth + 255}, rows(truth), NAMES, IDS)
    assert set(scores.summary.values()) == {None} and scores.counts["ignored_pixels"] == 6
    assert set(evaluate_semantic({}, [], NAMES, IDS).summary.values()) == {None}


def test_the_matrix_by_hand():
    """Rows are true, columns predicted, the last of them nothing; 255 in the truth is left out."""
    truth = np.array([[0, 0, 1, 255, 1]], np.uint8)
    predicted = np.array([[0, 1, 1, 0, 255]], np.uint8)
    matrix = ConfusionMatrix.of(truth, predicted, 2)
    assert matrix.counts.tolist() == [[1, 1, 0], [0, 1, 1]] and matrix.counts.dtype == np.int64
    assert matrix.hits.tolist() == [1, 1] and matrix.true_pixels.tolist() == [2, 2] and matrix.unions.tolist() == [2, 3]
    for wrong in ((truth + 2, predicted), (truth, predicted + 1)):
        with pytest.raises(ValueError, match=r"a label map with 2 classes may only hold 0\.\.1 and 255"):
            ConfusionMatrix.of(*wrong, 2)


def test_parts_add_up_in_any_order():
    """Law: whole counts, so that the sum over images and processes is exact; as over one large map."""
    generator = np.random.default_rng(0)
    pairs = [random_maps(generator, 6) for _ in range(5)]
    parts = [ConfusionMatrix.of(*pair, 6) for pair in pairs]
    forward = sum(parts, ConfusionMatrix.empty(6)).counts
    backward = sum(reversed(parts), ConfusionMatrix.empty(6)).counts
    whole = ConfusionMatrix.of(*(np.concatenate(maps) for maps in zip(*pairs, strict=True)), 6).counts
    np.testing.assert_array_equal(forward, backward)
    np.testing.assert_array_equal(forward, whole)


def test_a_map_becomes_rows(tmp_path):
    """COCO-stuff's form, by hand: a row for each class that is there, together every pixel once; written as others."""
    results = rows([[0, 2], [2, 2]], "a.jpg")
    assert [(row["image_id"], row["category_id"]) for row in results] == [("a.jpg", 10), ("a.jpg", 30)]
    assert [row["segmentation"] for row in results] == [
        {"size": [2, 2], "counts": "013"}, {"size": [2, 2], "counts": "13"},
    ]  # fmt: skip
    write_results(tmp_path / "results.json", results)
    assert (tmp_path / "results.json").read_text().count("\n") == 2
    assert sort_results(results[::-1]) == results


GOOD = {"size": [2, 2], "counts": "04"}
# name: (what is changed of the second row, case, what the line says)
BAD = {
    "no mask": ({"segmentation": ...}, "bad-results", "entry 1 has no segmentation"),
    "no ids": ({"image_id": ..., "category_id": ...}, "bad-results", "has no image_id and no category_id"),
    "unknown image": ({"image_id": 9}, "unknown-image", "entry 1 is about image 9"),
    "image id as text": ({"image_id": "1"}, "image-id-type", "type mismatch: str"),
    "unknown category": ({"category_id": 21}, "unknown-category", "entry 1 is about category 21"),
    "a label for a category": ({"category_id": 1}, "unknown-category", "category 1"),
    "category by name": ({"category_id": "road"}, "category-id-type", "type mismatch: str"),
    "twice": ({"category_id": 10}, "duplicate-result", "same image and category as entry 0"),
    "overlap": ({"segmentation": {"size": [2, 2], "counts": "22"}}, "overlapping-classes", "covers 1 pixels that"),
    "polygon": ({"segmentation": [[0, 0, 1, 0, 1, 1]]}, "bad-mask", "not compressed run lengths"),
    "uncompressed": ({"segmentation": GOOD | {"counts": [3, 1]}}, "bad-mask", "not compressed run lengths"),
    "other size": ({"segmentation": {"size": [1, 4], "counts": "31"}}, "bad-mask", "is 1x4 .* in an image of 2x2"),
    "too short": ({"segmentation": GOOD | {"counts": "3"}}, "bad-mask", "covers 3 pixels, its size says 4"),
    "too long": ({"segmentation": GOOD | {"counts": "35"}}, "bad-mask", "covers 8 pixels, its size says 4"),
    "garbage": ({"segmentation": GOOD | {"counts": "\xff\x01"}}, "bad-mask", "a character that run lengths do not"),
    "negative run": ({"segmentation": GOOD | {"counts": "6N"}}, "bad-mask", "has a run of length -2"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_row_that_cannot_be_scored_is_refused(name):
    """docs/faults.md rows 49-53, 129, 131: exit code 3, naming the entry and, where it has one, the image."""
    change, case, message = BAD[name]
    first = {"image_id": 1, "category_id": 10, "segmentation": {"size": [2, 2], "counts": "031"}}
    second = {"image_id": 1, "category_id": 20, "segmentation": {"size": [2, 2], "counts": "31"}}
    truth = {1: np.zeros((2, 2), np.uint8)}
    assert evaluate_semantic(truth, [first, second], NAMES, IDS).summary["pixel_accuracy"] == 0.75
    row = {key: value for key, value in (second | change).items() if value is not ...}
    with pytest.raises(DataError, match=message) as caught:
        evaluate_semantic(truth, [first, row], NAMES, IDS)
    assert caught.value.exit_code == 3 and caught.value.case == case and "entry 1" in str(caught.value)
    assert caught.value.image_id == row.get("image_id")


def test_the_table_by_hand():
    """Aligned, with a dash where there was nothing to find."""
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    assert format_scores(evaluate_semantic({1: truth}, rows([[0, 1, 1, 1]]), NAMES, IDS)).splitlines()[:9] == [
        "metric                   score  description",
        "mIoU                    0.5833  mean over classes of intersection over union",
        "pixel_accuracy          0.7500  fraction of correct pixels",
        "mean_accuracy           0.7500  mean over classes of the fraction of correct pixels",
        "frequency_weighted_iou  0.5833  IoU averaged with the classes' fractions of pixels",
        "",
        "class    mIoU",
        "sky    0.5000",
        "road   0.6667",
    ]
