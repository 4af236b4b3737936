"""Comparison of the predictions of two models: what counts as a difference, and how large it is."""

import math

import pytest
import torch

from vertebra.inference import Agreement, AgreementBounds, compare_predictions
from vertebra.inference.agreement import Outputs, compare_outputs
from vertebra.structures import (
    Classification,
    Detections,
    Embedding,
    PanopticMergeConfig,
    PanopticParts,
    RoIMasks,
    SemanticLogits,
)

BOUNDS = AgreementBounds(features=0.1, scores=0.1, missing=0.1, boxes=0.1, masks=0.1, keypoints=0.1, pixels=0.1)


def detections(rows: list[tuple[float, int, float]], masks: torch.Tensor | None = None) -> Detections:
    """Return detections of 10 x 10 pixels from (left, label, score)."""
    lefts, labels, scores = (torch.tensor(column) for column in zip(*rows, strict=True))
    boxes = torch.stack([lefts, torch.zeros_like(lefts), lefts + 10, torch.full_like(lefts, 10.0)], dim=1).float()
    return Detections(boxes, labels, scores, None if masks is None else RoIMasks(masks, (20, 200)))


def test_equal_detections_have_no_difference():
    """Law: in any order; each is looked for twice, once in each direction."""
    first = detections([(0.0, 1, 0.9), (50.0, 2, 0.5), (90.0, 1, 0.1)])
    assert compare_predictions(first, first[[2, 1, 0]]) == Agreement(detections=4)


def test_differences_of_matched_detections():
    """By hand: a box moved by 1 of 10 pixels overlaps with 9 / 11; the scores differ by 0.05."""
    agreement = compare_predictions(detections([(0.0, 1, 0.9)]), detections([(1.0, 1, 0.85)]))
    assert agreement.box_pixels == 1 and agreement.unmatched == 0
    assert (agreement.boxes, agreement.scores) == pytest.approx((1 - 9 / 11, 0.05), abs=1e-6)


def test_detections_are_matched_one_to_one():
    """By hand: of two detections of the same object only one has a counterpart, the nearer one."""
    first, second = detections([(0.0, 1, 0.9), (2.0, 1, 0.8)]), detections([(2.0, 1, 0.8)])
    agreement = compare_predictions(first, second)
    assert (agreement.detections, agreement.unmatched, agreement.box_pixels) == (3, 1, 0)


@pytest.mark.parametrize("other", [(0.0, 2, 0.9), (40.0, 1, 0.9), (0.0, 1, 0.2)], ids=["class", "place", "score"])
def test_detection_without_a_counterpart(other):
    """By hand: another class or place is another object. A low score is enough for a counterpart."""
    agreement = compare_predictions(detections([(0.0, 1, 0.9)]), detections([other]))
    if other[2] < 0.3:
        assert agreement.unmatched == 0 and agreement.scores == pytest.approx(0.7)
    else:
        assert agreement.missing == 1.0
        assert agreement.violations(BOUNDS) == ["missing: 1 (at most 0.1)"]


def test_model_that_finds_nothing_or_more_is_noticed():
    """By hand: detections of either model only."""
    some, none = detections([(0.0, 1, 0.9)]), detections([(0.0, 1, 0.9)])[:0]
    assert compare_predictions(some, none).missing == compare_predictions(none, some).missing == 1


def test_masks_differ_by_their_cells():
    """By hand: one of four cells is on the other side of one half."""
    first, second = torch.full((1, 2, 2), 0.8), torch.full((1, 2, 2), 0.6)
    second[0, 0, 0] = 0.4
    rows = [(0.0, 1, 0.9)]
    assert compare_predictions(detections(rows, first), detections(rows, second)).masks == 0.25


def test_other_predictions():
    """By hand: class maps, probabilities, vectors, panoptic parts, several heads, and a user's type."""
    logits = torch.zeros(2, 4, 4)
    logits[1] = 1.0
    changed = logits.clone()
    changed[0, 0, 0] = 2.0
    first, second = SemanticLogits.from_pixels(logits), SemanticLogits.from_pixels(changed)
    assert compare_predictions(first, second).pixels == 1 / 16
    classes = [Classification(torch.tensor([3, 1]), torch.tensor([top, 0.2])) for top in (0.7, 0.5)]
    assert compare_predictions(*classes).scores == pytest.approx(0.2)
    vectors = [Embedding(torch.tensor(values)) for values in ([1.0, 0.0], [0.6, 0.8])]
    assert compare_predictions(*vectors).scores == pytest.approx(0.4)
    found = [detections([(0.0, 0, score)], torch.ones(1, 2, 2)) for score in (0.9, 0.8)]
    parts = [
        PanopticParts(boxes, maps, 1, 1, PanopticMergeConfig())
        for boxes, maps in zip(found, (first, second), strict=True)
    ]
    several = compare_predictions({"panoptic": parts[0], "class": "a"}, {"panoptic": parts[1], "class": "b"})
    assert several.scores == pytest.approx(0.1) and several.pixels == 1 / 16


def test_feature_maps_are_compared_relative_to_their_largest_value():
    """By hand: 0.5 of 10; a NaN exceeds every bound."""
    first = [Outputs({"p2": torch.tensor([[1.0, -10.0]])}, [])]
    second = [Outputs({"p2": torch.tensor([[1.5, -10.0]])}, [])]
    assert compare_outputs(first, second).features == pytest.approx(0.05)
    broken = compare_outputs(first, [Outputs({"p2": torch.tensor([[math.nan, 0.0]])}, [])])
    assert broken.violations(BOUNDS) == ["features: nan (at most 0.1)"]


def test_line_for_the_user_names_every_difference():
    """By hand: of a detector and of a segmenter."""
    agreement = Agreement(features=0.01, scores=0.05, boxes=0.1, box_pixels=2.0, detections=8, unmatched=1)
    assert agreement.describe() == (
        "feature maps 0.01, scores 0.05, boxes 2 px (1 - IoU 0.1), masks 0, 1 of 8 detections without a counterpart"
    )
    assert Agreement(features=0.01, pixels=0.002).describe() == "feature maps 0.01, 0.20% of the pixels"
