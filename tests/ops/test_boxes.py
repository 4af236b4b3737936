"""Box arithmetic and anchors: laws, hand-made cases and torchvision's own functions."""

import pytest
import torch
import torchvision
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from vertebra import ops


def random_boxes(count: int, seed: int, extent: float = 200.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * extent
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * extent], dim=1)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decoding_undoes_encoding(weights):
    """A law: decode(encode(x)) = x for any reference."""
    boxes, references = random_boxes(50, 0), random_boxes(50, 1)
    there_and_back = ops.decode_boxes(ops.encode_boxes(boxes, references, weights), references, weights)
    torch.testing.assert_close(there_and_back, boxes, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_coder_equals_torchvision(weights):
    """torchvision's BoxCoder, both ways, with offsets large enough to meet the clamp."""
    boxes, references = random_boxes(50, 2), random_boxes(50, 3)
    peer = BoxCoder(weights)
    torch.testing.assert_close(
        ops.encode_boxes(boxes, references, weights), peer.encode([boxes], [references])[0], atol=1e-5, rtol=1e-5
    )
    offsets = torch.randn(50, 4, generator=torch.Generator().manual_seed(4)) * 20
    torch.testing.assert_close(
        ops.decode_boxes(offsets, references, weights), peer.decode_single(offsets, references), atol=1e-2, rtol=1e-5
    )


def test_growth_is_clamped_by_hand():
    """By hand: a 16 px box asked to grow by exp(100) becomes 16 * 1000 / 16 = 1000 px wide."""
    decoded = ops.decode_boxes(torch.tensor([[0.0, 0.0, 100.0, 0.0]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]]))
    torch.testing.assert_close(decoded, torch.tensor([[8.0 - 500, 0.0, 8.0 + 500, 16.0]]))


def test_empty_references_encode_to_finite_offsets():
    """A law: padding (empty boxes) never makes a NaN."""
    padding = torch.zeros(3, 4)
    assert ops.encode_boxes(padding, padding).isfinite().all()
    assert ops.encode_boxes(random_boxes(3, 0), padding).isfinite().all()


def test_iou_equals_torchvision_and_is_zero_for_empty_boxes():
    """torchvision.ops.box_iou on real boxes; empty ones overlap nothing, where torchvision says NaN."""
    first, second = random_boxes(30, 5), random_boxes(40, 6)
    torch.testing.assert_close(ops.pairwise_iou(first, second), torchvision.ops.box_iou(first, second))
    assert ops.pairwise_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_clipping_uses_each_images_own_size():
    """By hand: image 0 is 10 x 20 (h x w), image 1 is 30 x 5."""
    boxes = torch.tensor([[[-5.0, -5, 100, 100]], [[-5.0, 2, 100, 100]]])
    clipped = ops.clip_boxes(boxes, torch.tensor([[10, 20], [30, 5]]))
    assert clipped.tolist() == [[[0, 0, 20, 10]], [[0, 2, 5, 30]]]


def test_cell_anchors_equal_detectron2s_published_table():
    """The table of detectron2's own test: sizes 32 and 64, ratios 1/4, 1, 4."""
    anchors = ops.cell_anchors([32.0, 64.0], [0.25, 1.0, 4.0])
    expected = [
        [-32, -8, 32, 8], [-16, -16, 16, 16], [-8, -32, 8, 32],
        [-64, -16, 64, 16], [-32, -32, 32, 32], [-16, -64, 16, 64],
    ]  # fmt: skip
    assert anchors.tolist() == expected


def test_grid_anchors_equal_torchvision():
    """torchvision's AnchorGenerator (rounded), on a grid that is not square."""
    peer = AnchorGenerator(sizes=((32,),), aspect_ratios=((0.5, 1.0, 2.0),))
    images = ImageList(torch.zeros(1, 3, 48, 80), [(48, 80)])
    expected = peer(images, [torch.zeros(1, 8, 3, 5)])[0]
    assert torch.equal(ops.grid_anchors(ops.cell_anchors([32.0], [0.5, 1.0, 2.0], True), (3, 5), (16, 16)), expected)


def test_nms_keeps_labels_apart_at_large_coordinates():
    """An independent slow loop over classes; boxes far out, where float32 offsets would lose a hundredth of a pixel."""
    boxes = random_boxes(120, 7, extent=60) + 1200
    scores = torch.rand(120, generator=torch.Generator().manual_seed(8))
    labels = torch.arange(120) % 3 + 77
    expected = torch.zeros(120, dtype=torch.bool)
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        alive = own[scores[own].argsort(descending=True)].tolist()
        while alive:
            best = alive.pop(0)
            expected[best] = True
            overlaps = torchvision.ops.box_iou(boxes[best][None], boxes[alive])[0] if alive else []
            alive = [index for index, overlap in zip(alive, overlaps, strict=True) if overlap <= 0.5]
    assert torch.equal(ops.class_nms_mask(boxes, scores, labels, 0.5), expected)
    assert 0 < expected.sum() < 120
