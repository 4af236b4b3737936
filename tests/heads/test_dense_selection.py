"""Selection of the detections of dense heads: clipping before and after NMS."""

from typing import NamedTuple

import torch
from torch import Tensor

from vertebra.heads import DenseSelectionConfig
from vertebra.heads.dense import select_on_levels
from vertebra.ops import gather_rows


class Level(NamedTuple):
    """A level with given boxes and scores."""

    all_boxes: Tensor
    all_scores: Tensor

    def scores(self) -> Tensor:
        return self.all_scores

    def boxes(self, indices: Tensor) -> Tensor:
        return gather_rows(self.all_boxes, indices)


LEVEL = Level(
    torch.tensor([[[-10.0, 0, 5, 10], [20, 20, 30, 30], [0, 0, 5, 10], [6, 0, 9, 12]]]),
    torch.tensor([[[0.9], [0.8], [0.7], [0.6]]]),
)
"""On an image of 10 x 10: the IoU of the first and third box is 50 / 150, but 1 if clipped. The second is outside."""


def test_boxes_are_clipped_before_suppression():
    """By hand: the third box is suppressed; torchvision does so."""
    found = select_on_levels([LEVEL], torch.tensor([[10, 10]]), DenseSelectionConfig(clip="before", min_size=0.1))
    (detections,) = found.unpad()
    assert detections.boxes.tolist() == [[0, 0, 5, 10], [6, 0, 9, 10]]


def test_boxes_are_clipped_after_suppression():
    """By hand: the third box is kept, and the second one dropped after clipping; detectron2's RetinaNet does so."""
    found = select_on_levels([LEVEL], torch.tensor([[10, 10]]), DenseSelectionConfig(clip="after"))
    (detections,) = found.unpad()
    assert detections.boxes.tolist() == [[0, 0, 5, 10], [0, 0, 5, 10], [6, 0, 9, 10]]
    torch.testing.assert_close(detections.scores, torch.tensor([0.9, 0.7, 0.6]))
    assert found.valid[0].tolist() == [True, True, True, False]
    assert not found.boxes[0, 3].any() and not found.scores[0, 3]
