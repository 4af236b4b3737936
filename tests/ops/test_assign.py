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
    take_targets,
)
from vertebra.structures import Instances

from .test_boxes import random_boxes


@pytest.mark.parametrize("keep_best", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_matching_equals_torchvisions(seed, keep_best):
    """Oracle: torchvision's Matcher on random boxes: the same label for all, the same object for positives."""
    references, boxes = random_boxes(300, seed), random_boxes(7, seed + 100)
    match = match_boxes(references, boxes, (0.3, 0.6), keep_best)
    reference = Matcher(0.6, 0.3, allow_low_quality_matches=keep_best)(torchvision.ops.box_iou(boxes, references))
    expected = torch.where(reference >= 0, POSITIVE, torch.where(reference == -1, NEGATIVE, IGNORED))
    assert torch.equal(match.labels, expected)
    positive = match.labels == POSITIVE
    assert torch.equal(match.target_indices[positive], reference[positive])
    assert {POSITIVE, NEGATIVE, IGNORED} == set(match.labels.tolist())


def test_without_objects_everything_is_negative():
    """Law: all references of an image without objects are background."""
    match = match_boxes(random_boxes(10, 0), torch.zeros(0, 4), (0.3, 0.7), keep_best=True)
    assert match.labels.eq(NEGATIVE).all() and match.target_indices.eq(0).all()


def test_object_without_overlap_has_no_positive():
    """By hand: the object overlaps neither of two references, so 0 is the best overlap of each."""
    references = torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10]])
    match = match_boxes(references, torch.tensor([[500.0, 500, 510, 510]]), (0.3, 0.7), keep_best=True)
    assert match.labels.tolist() == [NEGATIVE, NEGATIVE]


def test_crowds_are_not_negatives():
    """docs/faults.md row 39. By hand: of four references one is positive, one lies in the crowd, one overlaps it by
    40 %, one is padding."""
    references = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 5, 5], [0.0, 0, 10, 10], [0.0, 0, 0, 0]])
    labels = torch.tensor([POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE])
    crowd = torch.tensor([[0.0, 0, 10, 4]])
    assert ignore_regions(labels, references, crowd, 0.5).tolist() == [POSITIVE, IGNORED, NEGATIVE, NEGATIVE]
    assert torch.equal(ignore_regions(labels, references, None, 0.5), labels)


def test_assignment_has_positives_negatives_and_ignored():
    """By hand: one reference on the object, one inside the crowd, one beside both."""
    target = Instances(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([3]), ignored=torch.tensor([[20.0, 0, 40, 40]]))
    references = torch.tensor([[1.0, 0, 10, 10], [22.0, 2, 30, 10], [50.0, 50, 60, 60]])
    match = assign_boxes(references, target, (0.5, 0.5))
    assert match.labels.tolist() == [POSITIVE, IGNORED, NEGATIVE]
    assert assign_boxes(references, target, (0.5, 0.5), ignore_coverage=1.1).labels.tolist()[1] == NEGATIVE


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


def test_targets_of_an_image_without_objects_are_the_default():
    """By hand: rows by index if there are objects, otherwise the default of the caller."""
    indices, default = torch.tensor([1, 0, 1]), torch.full((3, 4), 9.0)
    boxes = torch.tensor([[0.0, 0, 1, 1], [5.0, 5, 6, 6]])
    assert torch.equal(take_targets(boxes, indices, default), boxes[[1, 0, 1]])
    assert torch.equal(take_targets(torch.zeros(0, 4), torch.zeros(3, dtype=torch.int64), default), default)
