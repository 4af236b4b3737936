"""Box arithmetic: laws, cases by hand and torchvision's own functions."""

import math

import pytest
import torch
import torchvision
from torchvision.models.detection._utils import BoxCoder

from vertebra import ops


def random_boxes(count: int, seed: int, extent: float = 200.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * extent
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * extent], dim=1)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decoding_inverts_encoding(weights):
    """Law: decode(encode(x)) = x for any reference."""
    boxes, references = random_boxes(50, 0), random_boxes(50, 1)
    decoded = ops.decode_boxes(ops.encode_boxes(boxes, references, weights), references, weights)
    torch.testing.assert_close(decoded, boxes, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_offsets_equal_torchvisions(weights):
    """Oracle: torchvision's BoxCoder, both ways, with offsets large enough to meet the clamp."""
    boxes, references = random_boxes(50, 2), random_boxes(50, 3)
    reference = BoxCoder(weights)
    torch.testing.assert_close(
        ops.encode_boxes(boxes, references, weights), reference.encode([boxes], [references])[0], atol=1e-5, rtol=1e-5
    )
    offsets = torch.randn(50, 4, generator=torch.Generator().manual_seed(4)) * 20
    torch.testing.assert_close(
        ops.decode_boxes(offsets, references, weights),
        reference.decode_single(offsets, references),
        atol=1e-2,
        rtol=1e-5,
    )


def test_decoded_size_is_clamped():
    """By hand: a box of 16 px that should grow by exp(100) becomes 16 * 1000 / 16 = 1000 px wide."""
    decoded = ops.decode_boxes(torch.tensor([[0.0, 0.0, 100.0, 0.0]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]]))
    torch.testing.assert_close(decoded, torch.tensor([[8.0 - 500, 0.0, 8.0 + 500, 16.0]]))


def test_empty_references_encode_to_finite_offsets():
    """Law: padding (empty boxes) never makes a NaN."""
    padding = torch.zeros(3, 4)
    assert ops.encode_boxes(padding, padding).isfinite().all()
    assert ops.encode_boxes(random_boxes(3, 0), padding).isfinite().all()


def test_distances_to_the_sides_of_a_box():
    """By hand (1904.01355 Eq. 1), a point inside and one to the right of its box; and a law: decoding inverts it."""
    boxes, points = torch.tensor([[2.0, 3.0, 10.0, 8.0]] * 2), torch.tensor([[4.0, 7.0], [12.0, 4.0]])
    distances = ops.encode_distances(boxes, points)
    assert distances.tolist() == [[2.0, 4.0, 6.0, 1.0], [10.0, 1.0, -2.0, 4.0]]
    assert torch.equal(ops.decode_distances(distances, points), boxes)


def test_iou_equals_torchvisions_and_is_zero_for_empty_boxes():
    """Oracle: torchvision.ops.box_iou on real boxes; empty ones overlap nothing, where torchvision says NaN."""
    first, second = random_boxes(30, 5), random_boxes(40, 6)
    torch.testing.assert_close(ops.pairwise_iou(first, second), torchvision.ops.box_iou(first, second))
    assert ops.pairwise_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_boxes_are_clipped_to_their_own_image():
    """By hand: image 0 is 10 x 20 (h x w), image 1 is 30 x 5."""
    boxes = torch.tensor([[[-5.0, -5, 100, 100]], [[-5.0, 2, 100, 100]]])
    clipped = ops.clip_boxes(boxes, torch.tensor([[10, 20], [30, 5]]))
    assert clipped.tolist() == [[[0, 0, 20, 10]], [[0, 2, 5, 30]]]


def test_shorter_side_of_invalid_boxes():
    """By hand: a valid box, an inverted one, an empty one, one with a NaN."""
    boxes = torch.tensor([[0.0, 0, 3, 2], [5.0, 0, 1, 9], [1.0, 1, 1, 1], [0.0, torch.nan, 3, 2]])
    assert torch.equal(ops.shorter_sides(boxes)[:3], torch.tensor([2.0, -4.0, 0.0]))
    assert ops.shorter_sides(boxes)[3].isnan()


def test_center_and_sides_in_strides():
    """By hand (YOLOX): a box of 16 x 32 pixels around (20, 40), from a cell at (16, 32) of stride 8; decoding inverts
    it."""
    box, corner, stride = torch.tensor([[12.0, 24.0, 28.0, 56.0]]), torch.tensor([[16.0, 32.0]]), torch.tensor([[8.0]])
    encoded = ops.encode_centers(box, corner, stride)
    torch.testing.assert_close(encoded, torch.tensor([[0.5, 1.0, math.log(2), math.log(4)]]))
    torch.testing.assert_close(ops.decode_centers(encoded, corner, stride), box)
    assert ops.decode_centers(torch.full((1, 4), 1e6), corner, stride).isfinite().all()


def test_generalized_iou_equals_torchvisions():
    """Oracle: torchvision's loss and its gradient, for boxes that overlap, touch and lie apart."""
    first, second = (random_boxes(200, seed, 60).requires_grad_() for seed in (1, 2))
    found = 1 - ops.paired_giou(first, second)
    expected = torchvision.ops.generalized_box_iou_loss(first, second)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(loss.sum(), (first, second), retain_graph=True) for loss in (found, expected)]
    torch.testing.assert_close(*grads)
    assert (expected > 1).any() and (expected < 1).any()
