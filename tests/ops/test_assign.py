"""Assigning and sampling anchors and proposals: torchvision's Matcher, laws, and cases by hand."""

import pytest
import torch
import torchvision
from torchvision.models.detection._utils import Matcher

from vertebra.ops import (
    IGNORED,
    NEGATIVE,
    POSITIVE,
    assign_boxes,
    ignore_regions,
    match_boxes,
    sample_labels,
)
from vertebra.structures import Instances

from ..helpers.regions import pad_to
from .test_boxes import random_boxes


@pytest.mark.parametrize("keep_best", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_matching_equals_torchvisions(seed, keep_best):
    """Oracle: torchvision's Matcher on random boxes: the same label for all, the same object for positives."""
    references, boxes = random_boxes(300, seed), random_boxes(7, seed + 100)
    match = match_boxes(references, boxes, torch.ones(7, dtype=torch.bool), (0.3, 0.6), keep_best)
    reference = Matcher(0.6, 0.3, allow_low_quality_matches=keep_best)(torchvision.ops.box_iou(boxes, references))
    expected = torch.where(reference >= 0, POSITIVE, torch.where(reference == -1, NEGATIVE, IGNORED))
    assert torch.equal(match.labels, expected)
    positive = match.labels == POSITIVE
    assert torch.equal(match.target_indices[positive], reference[positive])
    assert {POSITIVE, NEGATIVE, IGNORED} == set(match.labels.tolist())


def test_without_objects_everything_is_negative():
    """Law: all references of an image without objects, which has only padding, are background."""
    no_object = torch.zeros(1, dtype=torch.bool)
    for thresholds in ((0.3, 0.7), (0.0, 0.0)):
        match = match_boxes(random_boxes(10, 0), torch.zeros(1, 4), no_object, thresholds, keep_best=True)
        assert match.labels.eq(NEGATIVE).all() and match.target_indices.eq(0).all()


def test_object_without_overlap_has_no_positive():
    """By hand: the object overlaps neither of two references, so 0 is the best overlap of each."""
    references = torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10]])
    far = torch.tensor([[500.0, 500, 510, 510]])
    match = match_boxes(references, far, torch.tensor([True]), (0.3, 0.7), keep_best=True)
    assert match.labels.tolist() == [NEGATIVE, NEGATIVE]


def test_crowds_are_not_negatives():
    """docs/faults.md row 39. By hand: of four references one is positive, one lies in the crowd, one overlaps it by
    40 %, one is padding."""
    references = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 5, 5], [0.0, 0, 10, 10], [0.0, 0, 0, 0]])
    labels = torch.tensor([POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE])
    crowd = torch.tensor([[0.0, 0, 10, 4]])
    assert ignore_regions(labels, references, crowd, 0.5).tolist() == [POSITIVE, IGNORED, NEGATIVE, NEGATIVE]
    for nothing in (torch.zeros(0, 4), torch.zeros(1, 4)):
        assert torch.equal(ignore_regions(labels, references, nothing, 0.0), labels)


def test_assignment_has_positives_negatives_and_ignored():
    """By hand: one reference on the object, one inside the crowd, one beside both."""
    target = Instances(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([3]), ignored=torch.tensor([[20.0, 0, 40, 40]]))
    references = torch.tensor([[1.0, 0, 10, 10], [22.0, 2, 30, 10], [50.0, 50, 60, 60]])
    targets = pad_to((64, 64), [target])
    assert assign_boxes(references, targets, (0.5, 0.5)).labels.tolist() == [[POSITIVE, IGNORED, NEGATIVE]]
    assert assign_boxes(references, targets, (0.5, 0.5), ignore_coverage=1.1).labels[0, 1] == NEGATIVE


@pytest.mark.parametrize(
    ("positives", "negatives", "expected_positives", "expected_negatives"),
    [(3, 50, 3, 13), (20, 50, 4, 12), (20, 2, 4, 2), (0, 50, 0, 16), (0, 0, 0, 0), (5, 0, 4, 0)],
)
def test_sampling_fills_up_with_negatives(positives, negatives, expected_positives, expected_negatives):
    """By hand, the paper's rule (1506.01497 3.1.3): at most a quarter of 16 are positives, the rest negatives."""
    labels = torch.tensor([POSITIVE] * positives + [NEGATIVE] * negatives + [IGNORED] * 9)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    sample = sample_labels(labels, 16, 0.25, torch.rand(len(labels)))
    drawn = sample.indices[sample.valid]
    assert len(sample.indices) == min(16, len(labels))
    assert len(drawn.unique()) == len(drawn)
    assert labels[drawn].tolist() == [POSITIVE] * expected_positives + [NEGATIVE] * expected_negatives
    assert torch.equal(sample.positive, sample.valid & (labels[sample.indices] == POSITIVE))


def test_sampling_is_uniform():
    """Law: every positive and every negative is drawn equally often (5 sigma)."""
    torch.manual_seed(0)
    labels = torch.tensor([POSITIVE] * 4 + [NEGATIVE] * 6)
    counts = torch.zeros(10)
    for _ in range(2000):
        sample = sample_labels(labels, 5, 0.4, torch.rand(len(labels)))
        counts[sample.indices[sample.valid]] += 1
    assert torch.allclose(counts[:4], torch.tensor(1000.0), atol=5 * (2000 * 0.25) ** 0.5)
    assert torch.allclose(counts[4:], torch.tensor(1000.0), atol=5 * (2000 * 0.25) ** 0.5)


@pytest.mark.parametrize("max_pairs", [2**26, 1])
def test_images_are_assigned_as_alone(max_pairs, monkeypatch):
    """Law: three images with 5, 0 and 2 objects get the assignments that each gets alone, together or in chunks."""
    monkeypatch.setattr("vertebra.ops.assign.MAX_PAIRS", max_pairs)
    objects = [
        Instances(
            random_boxes(count, seed), torch.zeros(count, dtype=torch.int64), ignored=random_boxes(seed, 50 + seed)
        )
        for seed, count in enumerate((5, 0, 2))
    ]
    references = random_boxes(200, 9)
    together = assign_boxes(references, pad_to((100, 100), objects), (0.3, 0.6), keep_best=True)
    for index, alone in enumerate(objects):
        expected = assign_boxes(references, pad_to((100, 100), [alone]), (0.3, 0.6), keep_best=True)
        assert torch.equal(together.labels[index], expected.labels[0])
        assert torch.equal(together.target_indices[index], expected.target_indices[0])
    assert {POSITIVE, NEGATIVE, IGNORED} == set(together.labels[2].tolist())
