"""Conventions of MMDetection, MMSegmentation and SMP, each against a plain computation, without these libraries."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vertebra
from vertebra.heads import FCOSConfig, FCOSHead, RCNNHead
from vertebra.necks import FPN, FPNConfig
from vertebra.ops import full_size_logits
from vertebra.structures import FeatureInfo, Images

from ..helpers.pyramids import BACKBONE, features_of
from ..helpers.semantic import build_head, scene
from .test_cascade import CONFIG as CASCADE_CONFIG
from .test_cascade import NUM_CLASSES, PYRAMID, batch

LEVELS = {"p3": FeatureInfo(16, 8), "p4": FeatureInfo(16, 16)}
SMALL = FCOSConfig(norm="none", convolutions=1)


def fcos(config: FCOSConfig) -> tuple[FCOSHead, dict[str, Tensor], Images]:
    """Return a head with random weights, features, and the images that they belong to."""
    torch.manual_seed(0)
    head = FCOSHead(LEVELS, 3, config).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    features = {name: torch.randn(1, 16, 64 // info.stride, 96 // info.stride) for name, info in LEVELS.items()}
    return head, features, Images.from_list([torch.zeros(3, 64, 96, dtype=torch.uint8)])


def flat(maps: Tensor) -> Tensor:
    """Return the values of each cell of a map."""
    return maps.flatten(2).transpose(1, 2)


@torch.no_grad()
def test_fcos_outputs_of_the_first_version():
    """By hand: exponential distances with a factor for each level, and the quality after the class convolutions."""
    config = SMALL.replace(distances="exponential", level_scales=True, quality_tower="class")
    head, features, images = fcos(config)
    assert [scale.ndim for scale in head.scales] == [0, 0]
    for level, scale, name in zip(head(features, images), head.scales, LEVELS, strict=True):
        boxes, classes = head.box_tower(features[name]), head.class_tower(features[name])
        torch.testing.assert_close(level.distances, (scale * flat(head.box_distances(boxes))).exp())
        torch.testing.assert_close(level.quality, flat(head.quality(classes)))


@torch.no_grad()
def test_fcos_distances_are_scaled_before_the_relu():
    """By hand: a negative factor makes positive outputs zero."""
    head, features, images = fcos(SMALL.replace(level_scales=True))
    head.scales[0].fill_(-2.0)
    expected = F.relu(-2.0 * flat(head.box_distances(head.box_tower(features["p3"])))) * 8
    torch.testing.assert_close(head(features, images)[0].distances, expected)


def test_fcos_towers_have_a_bias_unless_it_is_left_out():
    """By hand: with a norm only if it is asked for, without a norm always."""
    for norm, tower_bias, expected in (("group", True, True), ("group", False, False), ("none", False, True)):
        config = FCOSConfig(norm=norm, tower_bias=tower_bias, convolutions=1)
        head = FCOSHead({"p3": FeatureInfo(32, 8)}, 3, config)
        assert (head.class_tower[0][0].bias is not None) is expected


@torch.no_grad()
def test_fcos_quality_after_the_selection_multiplies_the_scores():
    """By hand: a class probability above the threshold stays, even if its product with the quality is below it."""
    selection = {"score_threshold": 0.5, "nms_threshold": 1.0, "max_detections": 1000}
    head, features, images = fcos(SMALL.replace(quality_in="score", selection=selection))
    levels = head(features, images)
    probabilities = torch.cat([level.logits.sigmoid() for level in levels], dim=1)
    quality = torch.cat([level.quality.sigmoid() for level in levels], dim=1)
    kept = probabilities > 0.5
    expected = (probabilities * quality)[kept].sort(descending=True).values
    assert (expected < 0.5).any()
    torch.testing.assert_close(head.predict(features, images)[0].scores, expected)
    head.config = head.config.replace(quality_in="selection")
    other = (probabilities * quality).sqrt()
    torch.testing.assert_close(
        head.predict(features, images)[0].scores, other[other > 0.5].sort(descending=True).values
    )


@torch.no_grad()
def test_cascade_averages_probabilities_or_logits():
    """By hand: the softmax of the mean logits differs from the mean of the softmax."""
    torch.manual_seed(0)
    features, images, _ = batch()
    scores = {}
    for mean in ("probabilities", "logits"):
        torch.manual_seed(0)
        head = RCNNHead(PYRAMID, NUM_CLASSES, CASCADE_CONFIG.replace(cascade_scores=mean)).eval()
        for stage in head.box_branches():
            stage.class_logits.weight.normal_(std=0.3)
        proposals = head.rpn.propose(head.rpn(features, images), images, training=False)
        outputs, stages = [], head.box_branches()
        for previous, stage in itertools.pairwise([None, *stages]):
            if previous is not None:
                proposals = previous.refine(outputs[-1], proposals, images)
            outputs.append(stage(features, proposals))
        logits = torch.stack([output.logits for output in outputs])
        expected = logits.softmax(dim=3).mean(dim=0) if mean == "probabilities" else logits.mean(dim=0).softmax(dim=2)
        scores[mean] = head._mean_scores(outputs)
        torch.testing.assert_close(scores[mean], expected[:, :, :NUM_CLASSES])
    assert not torch.allclose(scores["probabilities"], scores["logits"], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("relu", [True, False])
def test_extra_levels_with_and_without_a_relu(relu):
    """By hand: p7 is a convolution of p6, or of its positive values."""
    torch.manual_seed(0)
    neck = FPN(BACKBONE, FPNConfig(channels=8, extra="conv_from_input", extra_relu=relu))
    levels = neck(features_of(BACKBONE))
    p6 = levels["p6"].relu() if relu else levels["p6"]
    assert (levels["p6"] < 0).any()
    torch.testing.assert_close(levels["p7"], neck.extra.second(p6))


@torch.no_grad()
def test_pyramid_without_output_convolutions():
    """By hand: the coarsest level is its lateral convolution, and there are no other weights."""
    neck = FPN(BACKBONE, FPNConfig(channels=8, extra="none", output_convolutions=False))
    features = features_of(BACKBONE)
    assert {name.split(".")[0] for name in neck.state_dict()} == {"lateral"}
    torch.testing.assert_close(neck(features)["p5"], neck.lateral["c5"](features["c5"]))


@pytest.mark.parametrize(("first", "rates"), [(False, [1, 2, 2, 4]), (True, [2, 2, 4, 4])])
def test_first_block_of_a_dilated_stage(first, rates):
    """By hand: the dilations of the first and second block of c4 and c5 at an output stride of 8."""
    backbone = vertebra.create_backbone("resnet50", output_stride=8, dilate_first=first)
    blocks = (backbone.layer3[0], backbone.layer3[1], backbone.layer4[0], backbone.layer4[1])
    assert [block.conv2.dilation[0] for block in blocks] == rates


@torch.no_grad()
def test_fcn_with_further_convolutions_and_its_input():
    """By hand: two convolutions, a third that reads their output and the level, and the logits."""
    head = build_head("fcn", convolutions=2, concatenate=True).eval()
    features, images, _ = scene()
    part, level = head.classifier, features["c5"]
    hidden = part.further[0](part.convolution(level))
    expected = part.logits(part.merge(torch.cat([level, hidden], dim=1)))
    torch.testing.assert_close(head(features, images), expected)


@torch.no_grad()
def test_deeplab_with_a_convolution_after_the_aspp():
    """By hand: a 3x3 projection, and a separable convolution without a norm between its two parts."""
    head = build_head("deeplab", project_kernel=3, aspp_convolution=True, separable=True, depthwise_norm=False).eval()
    features, images, _ = scene()
    assert head.aspp.project[0].kernel_size == (3, 3)
    depthwise, pointwise = head.aspp_convolution
    assert isinstance(depthwise, torch.nn.Conv2d)
    hidden = head.aspp(features["c5"], images.sizes)
    expected = head.logits(head.decoder(pointwise(depthwise(hidden))))
    torch.testing.assert_close(head(features, images), expected)


@torch.no_grad()
@pytest.mark.parametrize("align_corners", [False, True])
def test_logits_are_resized_by_the_alignment_of_the_head(align_corners):
    """Oracle: torch's interpolation with this option; with corners in place, the first logit stays as it is."""
    head = build_head("fcn", align_corners=align_corners).eval()
    features, images, _ = scene()
    grids = head(features, images)
    height, width = images.padded_size
    expected = F.interpolate(grids, (height, width), mode="bilinear", align_corners=align_corners)
    for prediction, pixels, size in zip(head.predict(features, images), expected, images.sizes.tolist(), strict=True):
        torch.testing.assert_close(full_size_logits(prediction), pixels[:, : size[0], : size[1]])
    if align_corners:
        torch.testing.assert_close(expected[:, :, -1, -1], grids[:, :, -1, -1])


@torch.no_grad()
def test_unet_ends_at_full_resolution():
    """By hand: a last step of nearest upsampling and two convolutions, and a 3x3 convolution to the logits."""
    head = build_head("unet", levels=("c2", "c3"), full_resolution=True, logits_kernel=3).eval()
    features, images, _ = scene()
    middle = head.steps[0](features["c3"], features["c2"], (features["c2"].shape[2], features["c2"].shape[3]))
    upsampled = F.interpolate(middle, size=images.padded_size)
    expected = F.conv2d(head.steps[1].convolutions(upsampled), head.logits.weight, head.logits.bias, padding=1)
    torch.testing.assert_close(head(features, images), expected)
    assert expected.shape[-2:] == images.padded_size
