"""Selection of detections: slow loops of NMS, and padding."""

import pytest
import torch
import torchvision

from vertebra.ops import (
    NO_CANDIDATE,
    PaddedDetections,
    fixed_shapes,
    nms_mask,
    select_detections,
    suppress,
    suppress_levels,
    top_class_scores,
    top_scores,
    trim_padding,
)

from .test_boxes import random_boxes


def slow_nms_within_classes(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, threshold: float):
    """Return the boxes that a slow loop keeps: class by class, the best remaining box removes those that overlap it
    too much."""
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    boxes = boxes.double()
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        alive = rows[scores[rows].argsort(descending=True)].tolist()
        while alive:
            best = alive.pop(0)
            kept[best] = True
            overlaps = torchvision.ops.box_iou(boxes[best][None], boxes[alive])[0] if alive else []
            alive = [index for index, overlap in zip(alive, overlaps, strict=True) if overlap <= threshold]
    return kept


PLACES = {
    "inside an image": (0.0, 1.0),
    "far out, where float32 offsets would lose a hundredth of a pixel": (1200.0, 1.0),
    "negative": (-90.0, 1.0),
    "negative alone": (-5000.0, 1.0),
    "huge": (1e7, 1.0),
    "large boxes": (-3e5, 1e4),
    "small boxes": (-0.5, 1e-3),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("first_label", [0, 77])
def test_nms_is_per_class_at_any_coordinates(place, first_label):
    """Oracle: a slow loop over the classes."""
    origin, scale = PLACES[place]
    boxes = random_boxes(120, 7, extent=60) * scale + origin
    scores = torch.rand(120, generator=torch.Generator().manual_seed(8))
    labels = torch.arange(120) % 3 + first_label
    expected = slow_nms_within_classes(boxes, scores, labels, 0.5)
    assert torch.equal(nms_mask(boxes[None], scores[None], labels[None], 0.5)[0], expected)
    assert 0 < expected.sum() < 120


def test_equal_boxes_of_two_classes_are_both_kept():
    """By hand: of three equal boxes of two classes the worse one of the same class is suppressed."""
    boxes = torch.tensor([[[-100.0, -100, -20, -20]] * 3])
    kept = nms_mask(boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[0, 1, 1]]), 0.5)
    assert kept.tolist() == [[True, True, False]]


def test_nms_of_no_boxes():
    """By hand: an image without candidates gives an empty result."""
    nothing = torch.zeros(1, 0, 4), torch.zeros(1, 0), torch.zeros(1, 0, dtype=torch.int64)
    assert nms_mask(*nothing, 0.5).shape == (1, 0)
    found = select_detections(*nothing, 0.5, 10)
    assert found.valid.shape == (1, 0) and found.unpad()[0].boxes.shape == (0, 4)


def test_suppression_is_per_image_and_level():
    """Oracle: NMS of each level of each image alone, with levels of different sizes and rows that are no candidates."""
    boxes = [torch.stack([random_boxes(n, n, 60), random_boxes(n, n + 1, 60)]) for n in (80, 30)]
    scores = [torch.rand(2, n, generator=torch.Generator().manual_seed(n)) for n in (80, 30)]
    scores = [torch.where(level < 0.3, NO_CANDIDATE, level) for level in scores]
    all_boxes, remaining = suppress_levels(boxes, scores, 0.3)
    for image in range(2):
        found = all_boxes[image, remaining[image] > NO_CANDIDATE]
        expected = []
        for level_boxes, level_scores in zip(boxes, scores, strict=True):
            rows = (level_scores[image] > NO_CANDIDATE).nonzero()[:, 0]
            kept = torchvision.ops.nms(level_boxes[image, rows], level_scores[image, rows], 0.3)
            expected.append(level_boxes[image, rows[kept.sort().values]])
        assert 0 < len(torch.cat(expected)) < 70
        assert torch.equal(found, torch.cat(expected))
    assert torch.equal(suppress(boxes[0], scores[0], 0.3), remaining[:, :80])


def test_top_class_scores_equal_a_sort():
    """Oracle: Python's sort of all (reference, class) pairs; if there are fewer pairs than wanted, all are returned."""
    scores = torch.rand(2, 7, 3, generator=torch.Generator().manual_seed(0))
    best = top_class_scores(scores, 5)
    for image in range(2):
        pairs = [(scores[image, row, label].item(), row, label) for row in range(7) for label in range(3)]
        expected = sorted(pairs, reverse=True)[:5]
        assert list(zip(*(column[image].tolist() for column in best), strict=True)) == expected
    assert top_class_scores(scores, 1000).scores.shape == (2, 21)
    assert top_scores(scores[:, :, 0], 1000).indices.shape == (2, 7)


def test_non_candidates_become_padding():
    """By hand: two images with two candidates and none; a box with a NaN that is no candidate does no harm."""
    boxes = torch.tensor([[[0.0, 0, 9, 9], [torch.nan] * 4, [20.0, 0, 29, 9]], [[0.0, 0, 9, 9]] * 3])
    scores = torch.tensor([[0.3, NO_CANDIDATE, 0.8], [NO_CANDIDATE] * 3])
    labels = torch.tensor([[4, 0, 2], [1, 1, 1]])
    found = select_detections(boxes, scores, labels, 0.5, 2)
    assert found.valid.tolist() == [[True, True], [False, False]]
    assert found.labels[0].tolist() == [2, 4]
    assert found.boxes[1].eq(0).all() and found.scores[1].eq(0).all()
    first, second = found.unpad()
    assert first.boxes.tolist() == [[20, 0, 29, 9], [0, 0, 9, 9]] and len(second) == 0
    torch.testing.assert_close(first.scores, torch.tensor([0.8, 0.3]))


def test_trim_drops_rows_that_no_image_needs():
    """By hand: of five rows one image uses three, the other one."""
    valid = torch.arange(5) < torch.tensor([[3], [1]])
    padded = PaddedDetections(torch.zeros(2, 5, 4), torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5), valid)
    assert torch.equal(trim_padding(padded).valid, valid[:, :3])
    assert trim_padding(padded, at_least=4).boxes.shape == (2, 4, 4)
    assert [len(detections) for detections in trim_padding(padded).unpad()] == [3, 1]
    with fixed_shapes():
        assert torch.equal(trim_padding(padded).valid, valid)
