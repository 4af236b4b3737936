"""RetinaNet against torchvision's v1 and v2 with the same weights, stage by stage; and what it learns.

Each convention is also flipped alone, and its gate must fail: a gate that always passes proves nothing.
"""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.retinanet import RetinaNetHead as TorchvisionHead
from torchvision.models.detection.retinanet import _default_anchorgen
from torchvision.models.resnet import resnet18
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

import vertebra
from vertebra.heads import TORCHVISION_RETINANET, TORCHVISION_RETINANET_V2, RetinaNetConfig, RetinaNetHead
from vertebra.models import Model, from_torchvision_detector
from vertebra.necks import FPN, FPNConfig
from vertebra.ops import split_losses, total_loss
from vertebra.structures import FeatureInfo, Images, Instances

from ..helpers.reference_dense import (
    LEVELS,
    NUM_CLASSES,
    SIZES,
    by_level,
    prepare,
    reference_features,
    shared_fractions,
    targets,
)
from ..helpers.reference_detector import random_images

CONVENTIONS = {"v1": TORCHVISION_RETINANET, "v2": TORCHVISION_RETINANET_V2}


def torchvision_retinanet(version: str) -> RetinaNet:
    """Build torchvision's RetinaNet as its own builders do, on a ResNet-18, with weights that find something."""
    torch.manual_seed(0)
    norm = FrozenBatchNorm2d if version == "v1" else nn.BatchNorm2d
    extra = LastLevelP6P7(256 if version == "v1" else 512, 256)
    body = _resnet_fpn_extractor(resnet18(norm_layer=norm), 5, returned_layers=[2, 3, 4], extra_blocks=extra)
    options = {}
    if version == "v2":
        anchors = _default_anchorgen()
        group_norm = lambda channels: nn.GroupNorm(32, channels)  # noqa: E731
        head = TorchvisionHead(256, anchors.num_anchors_per_location()[0], NUM_CLASSES, norm_layer=group_norm)
        head.regression_head._loss_type = "giou"
        options = {"anchor_generator": anchors, "head": head}
    return prepare(RetinaNet(body, NUM_CLASSES, **options))


@pytest.fixture(scope="module", params=["v1", "v2"])
def version(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def peer(version) -> RetinaNet:
    return torchvision_retinanet(version)


def our_twin(peer: RetinaNet, config: RetinaNetConfig) -> Model:
    """Build our model with the peer's weights, under a convention."""
    from_input = peer.backbone.fpn.extra_blocks.p6.in_channels != 256
    norm = "frozen" if isinstance(peer.backbone.body.bn1, FrozenBatchNorm2d) else "batch"
    backbone = vertebra.create_backbone("resnet18", norm=norm, levels=("c3", "c4", "c5"))
    neck = FPN(backbone.feature_info, FPNConfig(extra="conv_from_input" if from_input else "conv"))
    model = Model(backbone, neck, RetinaNetHead(neck.feature_info, NUM_CLASSES, config))
    model.load_state_dict(from_torchvision_detector(peer.state_dict()), strict=config.normalizer == "image")
    return model.eval()


@torch.no_grad()
def outputs(peer: RetinaNet, config: RetinaNetConfig):
    """Return the peer's logits, offsets and anchors of two images, and ours on the peer's features."""
    image_list, maps, images = reference_features(peer)
    theirs, anchors = peer.head(maps), peer.anchor_generator(image_list, maps)[0]
    ours = our_twin(peer, config).head(by_level(maps), images)
    return theirs, anchors, ours


def by_size(rows: torch.Tensor) -> torch.Tensor:
    """Reorder rows of torchvision's, whose anchors of a cell go by ratio first, as ours go."""
    return rows.unflatten(-2, (-1, 3, 3)).transpose(-3, -2).flatten(-4, -2)


def test_features_equal_torchvisions(peer, version):
    """Oracle: torchvision's FPN with two extra levels, of P5 in v1 and of C5 in v2."""
    pixels, images = random_images(SIZES)
    with torch.no_grad():
        expected = peer.backbone(peer.transform(pixels)[0].tensors).values()
        found = our_twin(peer, CONVENTIONS[version]).features(images)
    for level, map_of_level in zip(LEVELS, expected, strict=True):
        torch.testing.assert_close(found[level], map_of_level, atol=5e-5, rtol=1e-5)


def test_anchors_and_outputs_equal_torchvisions(peer, version):
    """Oracle: torchvision's anchors bit for bit, its logits and offsets to rounding."""
    theirs, anchors, ours = outputs(peer, CONVENTIONS[version])
    assert torch.equal(torch.cat([level.anchors for level in ours]), by_size(anchors))
    for found, expected in (("logits", "cls_logits"), ("offsets", "bbox_regression")):
        rows = torch.cat([getattr(level, found) for level in ours], dim=1)
        torch.testing.assert_close(rows, by_size(theirs[expected]), atol=1e-5, rtol=1e-5)


def losses(peer: RetinaNet, config: RetinaNetConfig) -> tuple[dict, dict, Model]:
    """Return torchvision's losses on its features by our names, ours on the same features, and our model."""
    image_list, maps, images = reference_features(peer)
    theirs, ours = targets()
    expected = peer.compute_loss(theirs, peer.head(maps), peer.anchor_generator(image_list, maps))
    twin = our_twin(peer, config)
    found, _ = split_losses(twin.head.loss(by_level(maps), images, ours))
    return {"loss_class": expected["classification"], "loss_box": expected["bbox_regression"]}, found, twin


def test_losses_and_gradients_equal_torchvisions(peer, version):
    """Oracle: both losses to 1e-5, and the gradient of every head parameter to 1e-4 of its largest."""
    expected, found, twin = losses(peer, CONVENTIONS[version])
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-5, atol=0, msg=name)
    peer.zero_grad()
    total_loss(expected).backward()
    total_loss(found).backward()
    gradients = {name: value.grad for name, value in peer.named_parameters() if name.startswith("head.")}
    for name, gradient in from_torchvision_detector(gradients).items():
        scale = gradient.abs().max()
        assert scale > 0
        torch.testing.assert_close(twin.get_parameter(name).grad / scale, gradient / scale, atol=1e-4, rtol=0, msg=name)


@torch.no_grad()
def detections(peer: RetinaNet, config: RetinaNetConfig) -> list[tuple[float, int]]:
    """Return per image the fraction of torchvision's detections that ours has too, and how many those are."""
    pixels, images = random_images(SIZES)
    return shared_fractions(our_twin(peer, config).predict(images), peer(pixels))


def test_detections_equal_torchvisions_from_pixels(peer, version):
    """Oracle: torchvision's detections; one in fifty may differ where two candidates are nearly equal."""
    for fraction, count in detections(peer, CONVENTIONS[version]):
        assert count == 300 and fraction >= 0.98


@pytest.mark.parametrize(
    "change",
    [
        {"round_anchors": False},
        {"anchor_stride": "exact"},
        {"anchor_sizes": None},
        {"anchor_ratios": (1.0, 0.5, 2.0)},
    ],
    ids=str,
)
def test_negative_control_anchors(peer, version, change):
    """Each rule of the anchors flipped alone fails the gate of the anchors."""
    _, anchors, ours = outputs(peer, CONVENTIONS[version].replace(**change))
    assert (torch.cat([level.anchors for level in ours]) - by_size(anchors)).abs().max() > 0.1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"normalizer": "batch"}, "loss_class"),
        ({"normalizer": "average"}, "loss_box"),
        ({"match_thresholds": (0.2, 0.5)}, "loss_class"),
        ({"match_thresholds": (0.4, 0.6)}, "loss_box"),
        ({"focal_alpha": 0.5}, "loss_class"),
        ({"focal_gamma": 1.5}, "loss_class"),
    ],
    ids=str,
)
def test_negative_control_losses(peer, version, change, name):
    """Each rule of the losses flipped alone fails the gate of the losses."""
    expected, found, _ = losses(peer, CONVENTIONS[version].replace(**change))
    assert abs(found[name].item() / expected[name].item() - 1) > 1e-3


def test_negative_control_box_loss(peer, version):
    """The other version's box loss fails the gate of the losses."""
    other = {"v1": "giou", "v2": "smooth_l1"}[version]
    expected, found, _ = losses(peer, CONVENTIONS[version].replace(box_loss=other))
    assert abs(found["loss_box"].item() / expected["loss_box"].item() - 1) > 0.05


@pytest.mark.parametrize(
    "change",
    [{"score_threshold": 0.6}, {"nms_threshold": 0.4}, {"max_candidates": 200}, {"max_detections": 100}],
    ids=str,
)
def test_negative_control_detections(peer, version, change):
    """Each rule of the selection flipped alone fails the gate of the detections."""
    assert detections(peer, CONVENTIONS[version].replace(selection=change))[0][0] < 0.98


PYRAMID = {f"p{level}": FeatureInfo(8, 2**level) for level in range(3, 6)}


def small_head(**options) -> RetinaNetHead:
    torch.manual_seed(0)
    return RetinaNetHead(PYRAMID, 3, RetinaNetConfig(convolutions=1, **options))


def small_batch() -> tuple[dict, Images, list[Instances]]:
    generator = torch.Generator().manual_seed(0)
    features = {
        name: torch.randn(2, 8, 64 // info.stride, 64 // info.stride, generator=generator)
        for name, info in PYRAMID.items()
    }
    boxes = torch.tensor([[4.0, 4.0, 40.0, 36.0]])
    images = Images.from_list([torch.zeros(3, 64, 64, dtype=torch.uint8)] * 2)
    return (
        features,
        images,
        [Instances(boxes, torch.tensor([1])), Instances(boxes[:0], torch.tensor([], dtype=torch.int64))],
    )


def test_an_untrained_head_gives_every_class_one_percent():
    """By hand (1708.02002 section 3.3): the prior is the sigmoid of the bias."""
    head = small_head()
    assert torch.allclose(head.class_logits.bias.sigmoid(), torch.tensor(0.01))


def test_the_average_of_positives_follows_its_definition():
    """By hand (detectron2): 0.9 of the past and 0.1 of the batch, from 50 per image; evaluation leaves it alone."""
    head, (features, images, objects) = small_head(), small_batch()
    first = head.train().loss(features, images, objects)
    expected = 0.9 * 50 + 0.1 * max(first["positives"].float().mean().item(), 0.5)
    assert first["positives"].tolist()[0] > 0 and first["positives"].tolist()[1] == 0
    assert math.isclose(head.positives_per_image.item(), expected, rel_tol=1e-6)
    before = head.eval().positives_per_image.clone()
    head.loss(features, images, objects)
    assert torch.equal(head.positives_per_image, before)
    assert "positives_per_image" in head.state_dict(), "a resumed run goes on with it"


@pytest.mark.parametrize("normalizer", ["average", "batch", "image"])
def test_images_without_objects_have_finite_losses(normalizer):
    """Law: there is nothing to divide by, and nothing to learn but the background."""
    head, (features, images, objects) = small_head(normalizer=normalizer), small_batch()
    outputs = head.loss(features, images, [objects[1], objects[1]])
    assert outputs["loss_box"].item() == 0 and math.isfinite(outputs["loss_class"].item()) and outputs["loss_class"] > 0
    total_loss(outputs).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_a_crowd_is_no_negative():
    """Law: an ignore region over the whole image leaves no anchor in it to learn the background from."""
    head, (features, images, objects) = small_head(normalizer="batch"), small_batch()
    everything = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    crowd = Instances(objects[1].boxes, objects[1].labels, ignored=everything)
    with_crowd = head.loss(features, images, [crowd, crowd])["loss_class"]
    assert with_crowd < 0.7 * head.loss(features, images, [objects[1], objects[1]])["loss_class"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match_thresholds": (0.7, 0.3)}, "first threshold must not be above the second"),
        ({"match_thresholds": (0.4, 1.5)}, "less than or equal to 1"),
        ({"anchor_ratios": ()}, "at least 1 item"),
        ({"anchor_ratios": (-1.0,)}, "greater than 0"),
        ({"anchor_sizes": ((0.0,),)}, "greater than 0"),
        ({"selection": {"nms_threshold": -0.1}}, "greater than or equal to 0"),
    ],
    ids=str,
)
def test_option_out_of_range_is_refused(options, message):
    """By hand: ValidationError at construction; the same types guard the RPN, FCOS and the box branch."""
    with pytest.raises(ValidationError, match=message):
        RetinaNetConfig(**options)


@pytest.mark.parametrize(
    ("levels", "num_classes", "message"),
    [
        (("p4", "p3"), 3, "levels from fine to coarse"),
        (("p3", "p3"), 3, "levels from fine to coarse"),
        ((), 3, "levels from fine to coarse"),
        (None, 0, "at least one class; got num_classes=0"),
    ],
)
def test_unusable_pyramid_or_classes_are_refused(levels, num_classes, message):
    """By hand: ValueError at construction; FCOS and the RPN choose their levels by the same function."""
    with pytest.raises(ValueError, match=message):
        RetinaNetHead(PYRAMID, num_classes, RetinaNetConfig(levels=levels))


def test_a_box_that_is_not_a_number_is_no_detection():
    """Law: where a network breaks, its detections are none, and not boxes of NaN."""
    head, (features, images, _) = small_head(selection={"score_threshold": 0.0}), small_batch()
    with torch.no_grad():
        head.box_offsets.bias.fill_(math.nan)
    assert [len(found) for found in head.predict(features, images)] == [0, 0]
