"""Arguments of the branches of an R-CNN: targets of a batch, and regions that are all valid."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vertebra.heads import Proposals
from vertebra.ops import PaddedDetections, PaddedTargets, pad_targets
from vertebra.structures import Images, Instances


def pad_to(size: tuple[int, int], targets: Sequence[Instances]) -> PaddedTargets:
    """Pad targets of images that all have one (height, width)."""
    images = Images(torch.zeros(len(targets), 3, *size, dtype=torch.uint8), torch.tensor([size] * len(targets)))
    return pad_targets(targets, images)


def all_valid(boxes: Tensor) -> Proposals:
    """Return boxes (b, r, 4) as proposals without padding."""
    return Proposals(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool))


def detections_at(boxes: Tensor, labels: Tensor) -> PaddedDetections:
    """Return boxes (b, r, 4) and labels (b, r) as detections without padding."""
    return PaddedDetections(boxes, labels, torch.ones(boxes.shape[:2]), torch.ones(boxes.shape[:2], dtype=torch.bool))
