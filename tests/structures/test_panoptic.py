"""Panoptic segmentations: masks of segments, and refusal of inconsistent values."""

import pytest
import torch

from vertebra.structures import (
    Detections,
    PanopticMergeConfig,
    PanopticParts,
    PanopticSegmentation,
    Segment,
    SemanticLogits,
)

CAT, SKY = Segment(1, 0, True), Segment(7, 3, False)
IDS = torch.tensor([[1, 1, 0], [7, 7, 7]], dtype=torch.int32)


def test_masks_of_segments():
    """By hand: the pixels of each id; 0 is void."""
    image = PanopticSegmentation(IDS, (CAT, SKY))
    assert len(image) == 2 and image.to("cpu").segments == (CAT, SKY)
    assert image.mask(CAT).tolist() == [[True, True, False], [False, False, False]]
    assert image.mask(SKY).sum() == 3


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ((CAT, SKY, CAT), r"segments need distinct ids above 0, got \[1, 7, 1\]"),
        ((CAT, SKY, Segment(0, 0, True)), "distinct ids above 0"),
        ((CAT,), "the map has pixels of the id 7, but no segment has this id"),
    ],
)
def test_segments_that_do_not_fit_the_map_are_refused(segments, message):
    """By hand: ValueError with the reason."""
    with pytest.raises(ValueError, match=message):
        PanopticSegmentation(IDS, segments)


def test_parts_without_masks_or_classes_are_refused():
    """By hand: ValueError that says what is missing."""
    boxes = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    logits = SemanticLogits.from_pixels(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="use a head with a mask branch"):
        PanopticParts(boxes, logits, 2, 2, PanopticMergeConfig())
