"""Maps of classes: against one interpolation of all classes, and by hand."""

import pytest
import torch
import torch.nn.functional as F

from vertebra.ops import label_map, pad_maps
from vertebra.structures import IGNORE


@pytest.mark.parametrize("classes", [1, 2, 8, 9, 21])
@pytest.mark.parametrize("size", [(11, 14), (7, 5), (33, 20)])
def test_all_classes_at_once(classes, size):
    """torch: resize everything, then argmax. In part too: a few classes at a time changes nothing."""
    torch.manual_seed(classes)
    logits = torch.randn(classes, 11, 14)
    whole = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0].argmax(dim=0)
    found = label_map(logits, size)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), whole)


def test_the_first_of_equal_classes_wins():
    """A law of argmax, also across the parts that classes are resized in."""
    assert label_map(torch.ones(20, 3, 3), (3, 3)).eq(0).all()
    late = torch.zeros(20, 3, 3)
    late[[9, 17]] = 1.0
    assert label_map(late, (6, 6)).eq(9).all()


def test_padding_is_ignored():
    """By hand: two maps of different sizes in one tensor."""
    maps = [torch.zeros(2, 3, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int64)]
    expected = torch.tensor([[[0, 0, 0, IGNORE]] * 2, [[1, IGNORE, IGNORE, IGNORE], [IGNORE] * 4]])
    assert torch.equal(pad_maps(maps, (2, 4)), expected)
