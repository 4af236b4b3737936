"""Panoptic quality against a loop over sets of pixels, and the faults of panoptic results."""

import numpy as np
import pytest
import torch

from vertebra.evaluation import evaluate_panoptic, from_panoptic_result, to_panoptic_results
from vertebra.formats.results import read_json, sort_results, write_results
from vertebra.structures import DataError, PanopticSegmentation, Segment

from ..helpers.panoptic import CLASSES, disturbed, random_segmentation

EACH = ("PQ", "SQ", "RQ")


def segmentation(ids, *segments: Segment) -> PanopticSegmentation:
    return PanopticSegmentation(torch.tensor(ids, dtype=torch.int32), segments)


def rows_of(predictions: dict[int, PanopticSegmentation]) -> list[dict]:
    return [row for key, prediction in predictions.items() for row in to_panoptic_results(prediction, key, CLASSES.ids)]


def pixels(image: PanopticSegmentation, segment_id: int) -> set[tuple[int, int]]:
    return {(row, column) for row, column in np.argwhere(image.ids.numpy() == segment_id).tolist()}


def slow_quality(truths, predictions, labels) -> dict[str, float | None]:
    """Return PQ, SQ and RQ over ``labels`` by the text of 1801.00868, with sets of pixels."""
    qualities = []
    for label in labels:
        overlaps, missed, wrong = [], 0, 0
        for key, truth in truths.items():
            prediction = predictions[key]
            void = pixels(truth, 0)
            crowd = set()
            for segment in truth.segments:
                if segment.crowd and segment.label == label:
                    crowd = pixels(truth, segment.id)
            found = set()
            for segment in truth.segments:
                if segment.crowd or segment.label != label:
                    continue
                mine, match = pixels(truth, segment.id), None
                for other in prediction.segments:
                    theirs = pixels(prediction, other.id)
                    overlap = len(mine & theirs) / len((mine | theirs) - (theirs & void))
                    if other.label == label and overlap > 0.5:
                        match = other.id
                        overlaps.append(overlap)
                found.add(match)
                missed += match is None
            for other in prediction.segments:
                theirs = pixels(prediction, other.id)
                if other.label == label and other.id not in found:
                    wrong += len(theirs & (void | crowd)) / len(theirs) <= 0.5
        if overlaps or missed or wrong:
            total = len(overlaps) + missed / 2 + wrong / 2
            sq = sum(overlaps) / len(overlaps) if overlaps else 0.0
            qualities.append((sq * len(overlaps) / total, sq, len(overlaps) / total))
    means = np.mean(qualities, axis=0).tolist() if qualities else [None] * 3
    return dict(zip(EACH, means, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_quality_equals_a_loop_over_sets_of_pixels(seed):
    """Oracle: the rules of 1801.00868 and panopticapi as plain loops, on random maps with crowds and void, once near
    the truth and once far from it; all classes, things and stuff."""
    generator = np.random.default_rng(seed)
    truths = {key: random_segmentation(generator, crowds=True) for key in range(12)}
    predictions = {
        key: disturbed(truth, generator) if key % 3 else random_segmentation(generator) for key, truth in truths.items()
    }
    predictions = {
        key: PanopticSegmentation(found.ids, tuple(s for s in found.segments if (found.ids == s.id).any()))
        for key, found in predictions.items()
    }
    scores = evaluate_panoptic(truths, rows_of(predictions), CLASSES)
    for suffix, labels in (("", range(5)), ("_things", range(3)), ("_stuff", range(3, 5))):
        expected = slow_quality(truths, predictions, labels)
        assert {name: scores.summary[name + suffix] for name in EACH} == pytest.approx(expected, abs=1e-12)
    for label, name in enumerate(CLASSES.names):
        assert scores.per_class[name] == pytest.approx(slow_quality(truths, predictions, [label])["PQ"], abs=1e-12)
    assert scores.counts["crowds"] > 0 and 0 < scores.summary["PQ"] < 1


def test_rules_of_matching_by_hand():
    """By hand, in one row of ten pixels: two void pixels do not count in the union (IoU 4/5 and not 4/7); an IoU of
    exactly 1/2 is no match; half void is not ignored, more than half is."""
    truth = segmentation([[0, 0, 1, 1, 1, 1, 1, 2, 2, 0]], Segment(1, 0, True), Segment(2, 3, False))
    predicted = segmentation([[5, 5, 5, 5, 5, 5, 0, 6, 0, 0]], Segment(5, 0, True), Segment(6, 3, False))
    scores = evaluate_panoptic({1: truth}, rows_of({1: predicted}), CLASSES)
    assert scores.per_class == {"cat": 4 / 5, "dog": None, "cow": None, "sky": 0.0, "road": None}
    assert scores.summary["PQ"] == 2 / 5 and scores.summary["PQ_things"] == 4 / 5 and scores.summary["RQ_stuff"] == 0

    half_void = segmentation([[0, 0, 1, 1, 1, 1, 1, 1, 9, 9]], Segment(9, 1, True), Segment(1, 0, True))
    mostly_void = segmentation([[0, 0, 0, 1, 1, 1, 1, 1, 9, 9]], Segment(9, 1, True), Segment(1, 0, True))
    for truth_ids, counted in (([[0] * 9 + [3]], 0), ([[0] * 8 + [3, 0]], 1)):
        truth = segmentation(truth_ids, Segment(3, 4, False))
        for found in (half_void, mostly_void):
            scores = evaluate_panoptic({1: truth}, rows_of({1: found}), CLASSES)
            assert scores.counts["ignored_predictions"] == 1 and scores.counts["predicted_segments"] == 2
            assert scores.per_class["dog"] == 0.0 and scores.per_class["cat"] is None, counted


def test_crowds_excuse_predictions_of_their_class_only():
    """docs/faults.md row 40. By hand: a cat in a crowd of cats is ignored, a dog in it is wrong, and the crowd is not
    missed."""
    truth = segmentation([[1, 1, 1, 1, 2, 2]], Segment(1, 0, True, crowd=True), Segment(2, 3, False))
    cat = segmentation([[5, 5, 0, 0, 6, 6]], Segment(5, 0, True), Segment(6, 3, False))
    dog = segmentation([[5, 5, 0, 0, 6, 6]], Segment(5, 1, True), Segment(6, 3, False))
    scores = evaluate_panoptic({1: truth}, rows_of({1: cat}), CLASSES)
    assert (scores.summary["PQ"], scores.per_class["cat"], scores.counts["ignored_predictions"]) == (1.0, None, 1)
    scores = evaluate_panoptic({1: truth}, rows_of({1: dog}), CLASSES)
    assert (scores.summary["PQ"], scores.per_class["cat"], scores.per_class["dog"]) == (0.5, None, 0.0)


def test_images_without_a_result_and_without_segments():
    """docs/faults.md rows 124, 125, 135. By hand: segments of an image without a row or with an empty row are missed;
    without segments the scores are None."""
    truth = {1: segmentation([[1, 1]], Segment(1, 0, True)), 2: segmentation([[1, 0]], Segment(1, 0, True))}
    empty = segmentation([[0, 0]])
    scores = evaluate_panoptic(truth, rows_of({1: truth[1]}), CLASSES)
    assert scores.per_class["cat"] == pytest.approx(1 / 1.5) and scores.counts["images_without_result"] == 1
    assert evaluate_panoptic(truth, rows_of({1: empty, 2: empty}), CLASSES).summary["PQ"] == 0.0
    assert evaluate_panoptic(truth, [], CLASSES).summary["PQ_stuff"] is None
    assert evaluate_panoptic({1: empty}, rows_of({1: empty}), CLASSES).summary["PQ"] is None


def test_rows_round_trip(tmp_path):
    """docs/faults.md row 136. Law: a written and read row gives the same map, labels and scores, also without
    segments."""
    generator = np.random.default_rng(0)
    images = {key: random_segmentation(generator) for key in range(5)} | {9: segmentation([[0, 0]])}
    images[3] = segmentation([[0, 7]], Segment(7, 2, True, 0.12345678901234567))
    write_results(tmp_path / "rows.json", rows_of(images))
    for row in read_json(tmp_path / "rows.json"):
        again, image = from_panoptic_result(row, CLASSES), images[row["image_id"]]
        assert torch.equal(again.ids, image.ids) and again.segments == image.segments
    assert sort_results(rows_of(images)[::-1]) == rows_of(images)


GOOD = {"size": [1, 4], "counts": "022"}
BAD = {
    "unknown image": (lambda row: row.update(image_id=9), "unknown-image", "is about image 9"),
    "second row": (lambda row: row.update(image_id=1), "duplicate-result", "second result of its image"),
    "no segments": (lambda row: row.pop("segments_info"), "bad-results", "has no segments_info"),
    "segments as text": (lambda row: row.update(segments_info=["x"]), "bad-results", "is not a list of objects"),
    "no mask": (lambda row: row["segments_info"][0].pop("segmentation"), "bad-results", "has no segmentation"),
    "size": (lambda row: row.update(size=[0, 4]), "bad-mask", "not two positive whole numbers"),
    "size of another image": (
        lambda row: (row.update(size=[4, 1]), row["segments_info"][0].update(segmentation={**GOOD, "size": [4, 1]})),
        "bad-mask",
        r"has the size \[4, 1\] \(height, width\), its image \[1, 4\]",
    ),
    "size of the mask": (
        lambda row: row["segments_info"][0].update(segmentation={**GOOD, "size": [2, 2]}), "bad-mask", "is 2x2",
    ),
    "id 0": (lambda row: row["segments_info"][0].update(id=0), "bad-segment-id", "from 1 to 16777215"),
    "id twice": (lambda row: row["segments_info"].append(row["segments_info"][0]), "duplicate-segment", "the id 7"),
    "category": (lambda row: row["segments_info"][0].update(category_id=4), "unknown-category", "category 4"),
    "score": (lambda row: row["segments_info"][0].update(score=float("nan")), "bad-score", "nan"),
    "no pixels": (
        lambda row: row["segments_info"][0].update(segmentation={**GOOD, "counts": "4"}), "empty-segment", "no pixels",
    ),
    "overlap": (
        lambda row: row["segments_info"].append({**row["segments_info"][0], "id": 8}),
        "overlapping-segments",
        "segment 8, which overlaps another segment in 2 pixels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_row_is_refused(name):
    """docs/faults.md rows 49, 126, 129, 131. By hand: exit code 3, naming the entry."""
    change, case, message = BAD[name]
    truth = {key: segmentation([[1, 1, 0, 0]], Segment(1, 0, True)) for key in (1, 2)}
    rows = [
        {"image_id": key, "size": [1, 4], "segments_info": [{"id": 7, "category_id": 3, "segmentation": GOOD}]}
        for key in (1, 2)
    ]
    assert evaluate_panoptic(truth, rows, CLASSES).summary["PQ"] == 1.0
    change(rows[1])
    with pytest.raises(DataError, match=message) as caught:
        evaluate_panoptic(truth, rows, CLASSES)
    assert caught.value.exit_code == 3 and caught.value.case == case and "entry 1" in str(caught.value)
