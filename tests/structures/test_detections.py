"""Indexing ``Detections``, as torch users expect of a tensor that keeps its first axis."""

import numpy as np
import pytest
import torch

from vertebra.structures import Detections, RoIMasks

COUNT = 4
DETECTIONS = Detections(
    torch.arange(16.0).view(COUNT, 4),
    torch.tensor([3, 1, 2, 0]),
    torch.tensor([0.9, 0.8, 0.5, 0.1]),
    RoIMasks(torch.arange(COUNT * 4.0).view(COUNT, 2, 2), (10, 20)),
)
# index: the rows that it selects
ROWS = {
    "number": (1, [1]),
    "number from the end": (-1, [3]),
    "numpy number": (np.int64(2), [2]),
    "number in a tensor": (torch.tensor(2), [2]),
    "slice": (slice(1, 3), [1, 2]),
    "slice with a step": (slice(None, None, 2), [0, 2]),
    "numbers": ([2, 0], [2, 0]),
    "no numbers": ([], []),
    "bools": ([True, False, False, True], [0, 3]),
    "tensor of numbers": (torch.tensor([3, 3, 0]), [3, 3, 0]),
    "tensor of short numbers": (torch.tensor([1], dtype=torch.int32), [1]),
    "tensor of bools": (DETECTIONS.scores > 0.4, [0, 1, 2]),
}


@pytest.mark.parametrize("name", ROWS)
def test_index_selects_rows_of_every_field(name):
    """docs/faults.md row 145. By hand: ``Detections`` of these rows, with masks, also for one row."""
    index, rows = ROWS[name]
    chosen = DETECTIONS[index]
    assert isinstance(chosen, Detections) and len(chosen) == len(rows)
    assert torch.equal(chosen.boxes, DETECTIONS.boxes[rows]) and torch.equal(chosen.scores, DETECTIONS.scores[rows])
    assert torch.equal(chosen.labels, DETECTIONS.labels[rows])
    assert torch.equal(chosen.masks.grids, DETECTIONS.masks.grids[rows]) and chosen.masks.size == (10, 20)


def test_iteration_yields_single_detections():
    """Law: as many as there are, in order; also without masks."""
    assert [(len(one), one.labels.item()) for one in DETECTIONS] == [(1, 3), (1, 1), (1, 2), (1, 0)]
    without = Detections(DETECTIONS.boxes, DETECTIONS.labels, DETECTIONS.scores)
    assert [one.masks for one in without] == [None] * COUNT
    assert list(DETECTIONS[:0]) == []


@pytest.mark.parametrize("index", [4, -5, torch.tensor([0, 9]), torch.tensor([True])])
def test_index_out_of_range_is_an_index_error(index):
    """By hand: as for a list and a tensor."""
    with pytest.raises(IndexError):
        _ = DETECTIONS[index]
