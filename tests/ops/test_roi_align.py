"""RoIAlign over a pyramid: torchvision's pooler, detectron2's published values, laws."""

import contextlib

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from vertebra.ops import RoIAlignConfig, fixed_shapes, pool_regions, region_levels

from .test_boxes import random_boxes

STRIDES = (4, 8, 16, 32)


@pytest.fixture(params=[True, False], ids=["as a CPU", "as a GPU"], autouse=True)
def as_device(request):
    """Run every test as on a CPU, which pools level by level, and as on a GPU, which gives all boxes to each level."""
    with contextlib.nullcontext() if request.param else fixed_shapes():
        yield


def pyramid(size: int = 256) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, size // stride, size // stride, generator=generator) for stride in STRIDES]


def pool(features, boxes, config, strides=STRIDES):
    """Pool boxes (b, r, 4) of a batch of images, in the order of the images."""
    images = torch.arange(len(boxes)).repeat_interleave(boxes.shape[1])
    return pool_regions(features, strides, images, boxes.flatten(0, 1), config)


def test_pooling_equals_torchvisions_under_its_conventions():
    """Oracle: MultiScaleRoIAlign, with boxes on every level and exactly on the edges between levels."""
    features = pyramid(1024)
    edges = torch.tensor([[0.0, 0, 224 * 2**k, 224 * 2**k] for k in (-1, 0, 1, 2)])
    boxes = torch.stack([torch.cat([random_boxes(30, seed, 500), edges]) for seed in (0, 1)])
    config = RoIAlignConfig(sampling_ratio=2, aligned=False, level_epsilon="outside")
    reference = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    named = {str(index): level for index, level in enumerate(features)}
    expected = reference(named, list(boxes), [(1024, 1024)] * 2)
    torch.testing.assert_close(pool(features, boxes, config), expected, rtol=1e-6, atol=1e-6)
    assert len(region_levels(boxes, STRIDES, config).unique()) == 4


def test_every_box_is_pooled_from_its_own_level():
    """Oracle: torchvision's roi_align, box by box on its level."""
    features, config = pyramid(), RoIAlignConfig()
    boxes = torch.stack([random_boxes(20, 2, 120), random_boxes(20, 3, 120)])
    levels = region_levels(boxes, STRIDES, config)
    pooled = pool(features, boxes, config).unflatten(0, (2, 20))
    for image in range(2):
        for index in range(20):
            level = levels[image, index]
            expected = roi_align(
                features[level][image : image + 1], [boxes[image, index][None]], 7, 1 / STRIDES[level], 0, True
            )
            torch.testing.assert_close(pooled[image, index], expected[0], rtol=1e-6, atol=1e-6)


def test_aligned_pooling_gives_detectron2s_published_values():
    """Oracle: the numbers of detectron2's own test: arange(25) as 5 x 5, box [1, 1, 3, 3], 4 x 4 bins."""
    features = [torch.arange(25.0).reshape(1, 1, 5, 5)]
    config = RoIAlignConfig(size=4, canonical_level=0)
    pooled = pool(features, torch.tensor([[[1.0, 1, 3, 3]]]), config, strides=[1])[0, 0]
    first_row = torch.tensor([4.5, 5.0, 5.5, 6.0])
    torch.testing.assert_close(pooled, first_row + torch.tensor([[0.0], [2.5], [5.0], [7.5]]))


@pytest.mark.parametrize("config", [RoIAlignConfig(), RoIAlignConfig(sampling_ratio=2, aligned=False)])
def test_gradient_reaches_only_the_level_of_the_box(config):
    """Law: a small box reads the finest level and no other."""
    features = [level.requires_grad_() for level in pyramid()]
    pool(features, torch.tensor([[[40.0, 40, 60, 60]]] * 2), config).sum().backward()
    assert features[0].grad.abs().sum() > 0
    assert all(level.grad.abs().sum() == 0 for level in features[1:])


def test_half_precision_does_not_move_boxes():
    """Law: on a ramp that bfloat16 represents exactly, pooling in bfloat16 differs by its rounding only (2 to the
    -8)."""
    ramp = torch.arange(320.0).div(4, rounding_mode="floor").remainder(16).expand(1, 1, 320, 320).contiguous()
    boxes = torch.tensor([[[1001.0, 801.0, 1061.0, 861.0], [613.0, 411.0, 900.0, 777.0]]])
    config = RoIAlignConfig(canonical_level=2)
    exact = pool([ramp], boxes, config, strides=[4])
    half = pool([ramp.bfloat16()], boxes, config, strides=[4])
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=2**-8, atol=0)


def test_empty_boxes_pool_to_zero():
    """Law: an empty box has no samples, so padded proposals have zero features."""
    pooled = pool(pyramid(), torch.zeros(2, 3, 4), RoIAlignConfig())
    assert pooled.eq(0).all()


@pytest.mark.parametrize("config", [RoIAlignConfig(), RoIAlignConfig(size=3, sampling_ratio=2, aligned=False)])
def test_regions_of_any_shape_equal_torchvisions_operator(config):
    """Oracle: torchvision's roi_align and its gradient, for long, tiny and empty regions and such outside the image."""
    shapes = [[0.0, 0, 256, 9], [3.0, 0, 9, 256], [10.0, 10, 10.5, 10.2], [90.0, 90, 90, 90], [0.0, 0, 256, 256]]
    outside = [[-40.0, -40, 20, 20], [200.0, 200, 400, 300], [500.0, 500, 600, 600], [-3.0, 250, 100, 260]]
    boxes = torch.cat([torch.tensor(shapes + outside), random_boxes(40, 5, 250)]).expand(2, -1, 4)
    ours, theirs = (pyramid(256)[0].requires_grad_() for _ in range(2))
    config = config.replace(canonical_level=2, canonical_size=1e6)  # a single level
    found = pool([ours], boxes, config, strides=[4])
    expected = roi_align(theirs, list(boxes), config.size, 1 / 4, config.sampling_ratio, config.aligned)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)
