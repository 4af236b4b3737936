"""FCOS against torchvision's with the same weights, stage by stage; ATSS against its algorithm; and laws of both.

Each convention is also flipped alone, and its gate must fail: a gate that always passes proves nothing.
"""

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.resnet import resnet18
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

import vertebra
from vertebra.heads import TORCHVISION_FCOS, FCOSConfig, FCOSHead
from vertebra.models import Model, from_torchvision_detector
from vertebra.necks import FPN, FPNConfig
from vertebra.ops import POSITIVE, match_by_statistics, match_points, pairwise_iou, split_losses, total_loss
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

# The reference's scores are low: a threshold of 0.2 would leave too few detections to compare.
CONVENTIONS = TORCHVISION_FCOS.replace(selection={"score_threshold": 0.05})


@pytest.fixture(scope="module")
def peer() -> FCOS:
    """Return torchvision's FCOS on a ResNet-18, built as its own builder does."""
    torch.manual_seed(0)
    extra = LastLevelP6P7(256, 256)
    body = resnet18(norm_layer=FrozenBatchNorm2d)
    body = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=extra)
    model = prepare(FCOS(body, NUM_CLASSES, score_thresh=0.05))
    with torch.no_grad():
        model.head.regression_head.bbox_reg.bias.fill_(2.0)
    return model


def our_twin(peer: FCOS, config: FCOSConfig = CONVENTIONS) -> Model:
    """Build our model with the peer's weights, under a convention."""
    backbone = vertebra.create_backbone("resnet18", norm="frozen", levels=("c3", "c4", "c5"))
    neck = FPN(backbone.feature_info, FPNConfig(extra="conv"))
    model = Model(backbone, neck, FCOSHead(neck.feature_info, NUM_CLASSES, config))
    model.load_state_dict(from_torchvision_detector(peer.state_dict()))
    return model.eval()


@torch.no_grad()
def outputs(peer: FCOS, config: FCOSConfig = CONVENTIONS):
    """Return the peer's outputs and points of two images, and ours on the peer's features."""
    image_list, maps, images = reference_features(peer)
    anchors = peer.anchor_generator(image_list, maps)[0]
    ours = our_twin(peer, config).head(by_level(maps), images)
    return peer.head(maps), (anchors[:, :2] + anchors[:, 2:]) / 2, ours


def test_points_and_outputs_equal_torchvisions(peer):
    """Oracle: torchvision's points bit for bit, its logits, distances in strides and centerness to rounding."""
    theirs, points, ours = outputs(peer)
    assert torch.equal(torch.cat([level.points for level in ours]), points)
    found = {
        "cls_logits": torch.cat([level.logits for level in ours], dim=1),
        "bbox_regression": torch.cat(
            [level.distances / 2**number for number, level in enumerate(ours, start=3)], dim=1
        ),
        "bbox_ctrness": torch.cat([level.quality for level in ours], dim=1),
    }
    for name, expected in theirs.items():
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-5, msg=name)
    assert (found["bbox_regression"] > 0).float().mean() > 0.2, "the distances are not all cut off at zero"


def losses(peer: FCOS, config: FCOSConfig = CONVENTIONS) -> tuple[dict, dict, Model]:
    """Return torchvision's losses on its features by our names, ours on the same features, and our model."""
    image_list, maps, images = reference_features(peer)
    theirs, ours = targets()
    counts = [level.shape[2] * level.shape[3] for level in maps]
    expected = peer.compute_loss(theirs, peer.head(maps), peer.anchor_generator(image_list, maps), counts)
    twin = our_twin(peer, config)
    found, _ = split_losses(twin.head.loss(by_level(maps), images, ours))
    names = {"loss_class": "classification", "loss_box": "bbox_regression", "loss_quality": "bbox_ctrness"}
    return {name: expected[theirs] for name, theirs in names.items()}, found, twin


def test_losses_and_gradients_equal_torchvisions(peer):
    """Oracle: three losses to 1e-5, and the gradient of every head parameter to 1e-4 of its largest."""
    expected, found, twin = losses(peer)
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
def detections(peer: FCOS, config: FCOSConfig = CONVENTIONS) -> list[tuple[float, int]]:
    """Return per image the fraction of torchvision's detections that ours has too, and how many those are."""
    pixels, images = random_images(SIZES)
    return shared_fractions(our_twin(peer, config).predict(images), peer(pixels))


def test_detections_equal_torchvisions_from_pixels(peer):
    """Oracle: torchvision's detections; one in fifty may differ where two candidates are nearly equal."""
    for fraction, count in detections(peer):
        assert count == 100 and fraction >= 0.98


@pytest.mark.parametrize("change", [{"points": "center"}, {"point_stride": "exact"}], ids=str)
def test_negative_control_points(peer, change):
    """Each rule of the points flipped alone fails the gate of the points."""
    _, points, ours = outputs(peer, CONVENTIONS.replace(**change))
    assert (torch.cat([level.points for level in ours]) - points).abs().max() > 1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"points": "center"}, "loss_box"),
        ({"center_radius": None}, "loss_class"),
        ({"center_radius": 2.5}, "loss_box"),
        ({"assign": "statistics"}, "loss_class"),
        ({"quality": "iou"}, "loss_quality"),
        ({"focal_alpha": 0.5}, "loss_class"),
        ({"focal_gamma": 1.5}, "loss_class"),
    ],
    ids=str,
)
def test_negative_control_losses(peer, change, name):
    """Each rule of the losses flipped alone fails the gate of the losses."""
    expected, found, _ = losses(peer, CONVENTIONS.replace(**change))
    assert abs(found[name].item() / expected[name].item() - 1) > 1e-3


@pytest.mark.parametrize(
    "change",
    [{"score_threshold": 0.5}, {"nms_threshold": 0.3}, {"max_candidates": 20}, {"max_detections": 50}],
    ids=str,
)
def test_negative_control_detections(peer, change):
    """Each rule of the selection flipped alone fails the gate of the detections."""
    assert detections(peer, CONVENTIONS.replace(selection=change))[0][0] < 0.98


def test_a_point_takes_the_smallest_object_of_its_size():
    """By hand: three points of a level with stride 8, which has objects of 32 to 64 pixels, and two nested boxes."""
    boxes = torch.tensor([[0.0, 0.0, 80.0, 80.0], [20.0, 20.0, 70.0, 70.0]])
    points = torch.tensor([[44.0, 44.0], [26.0, 44.0], [4.0, 4.0]])
    strides, ranges = torch.full((3,), 8.0), torch.tensor([[32.0, 64.0]]).expand(3, 2)
    # Largest distances: to the first box 44, 54 and 76; to the second 26, 44 and, from outside, 66.
    valid = torch.ones(2, dtype=torch.bool)
    anywhere = match_points(points, boxes, valid, strides, ranges, radius=None)
    assert (anywhere.labels == POSITIVE).tolist() == [True, True, False]
    assert anywhere.target_indices[:2].tolist() == [0, 1]
    near = match_points(points, boxes, valid, strides, ranges, radius=1.5)  # 12 pixels from (40, 40) and from (45, 45)
    assert (near.labels == POSITIVE).tolist() == [True, False, False]


def assign_slowly(anchors: list[Tensor], boxes: Tensor, candidates: int) -> list[int]:
    """Return the object of each anchor, or -1, object by object and candidate by candidate (1912.02424 Algorithm 1)."""
    every = torch.cat(anchors)
    best = [(-1, -1.0)] * len(every)
    for index, box in enumerate(boxes):
        center, rows, first = (box[:2] + box[2:]) / 2, [], 0
        for level in anchors:
            distances = [math.dist(((a[:2] + a[2:]) / 2).tolist(), center.tolist()) for a in level]
            rows += [first + row for row in sorted(range(len(level)), key=distances.__getitem__)[:candidates]]
            first += len(level)
        overlaps = pairwise_iou(box[None], every[rows])[0]
        threshold = overlaps.mean() + overlaps.std()
        for row, overlap in zip(rows, overlaps, strict=True):
            x, y = ((every[row][:2] + every[row][2:]) / 2).tolist()
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if overlap >= threshold and inside and overlap > best[row][1]:
                best[row] = (index, overlap.item())
    return [index for index, _ in best]


@pytest.mark.parametrize("seed", range(3))
def test_assignment_by_statistics_equals_the_algorithm(seed):
    """Oracle: the paper's algorithm written out in plain loops, on three levels and overlapping objects."""
    generator = torch.Generator().manual_seed(seed)
    anchors = []
    for stride in (8, 16, 32):
        centers = torch.cartesian_prod(torch.arange(stride / 2, 128, stride), torch.arange(stride / 2, 128, stride))
        centers = centers + torch.rand(centers.shape, generator=generator)  # no two at the same distance
        anchors.append(torch.cat([centers - 4 * stride, centers + 4 * stride], dim=1))
    corners = 80 * torch.rand(6, 2, generator=generator)
    boxes = torch.cat([corners, corners + 10 + 60 * torch.rand(6, 2, generator=generator)], dim=1)
    valid = torch.ones(6, dtype=torch.bool)
    match = match_by_statistics(torch.cat(anchors), boxes, valid, [len(level) for level in anchors])
    expected = torch.tensor(assign_slowly(anchors, boxes, 9))
    assert torch.equal(match.labels == POSITIVE, expected >= 0)
    assert torch.equal(match.target_indices[expected >= 0], expected[expected >= 0])
    assert len(expected[expected >= 0].unique()) >= 4, "most objects have a point"


PYRAMID = {f"p{level}": FeatureInfo(32, 2**level) for level in range(3, 6)}


def small_batch() -> tuple[dict, Images, list[Instances]]:
    """Return random features of two images of 64 pixels; the second has no object."""
    generator = torch.Generator().manual_seed(0)
    sides = {name: 64 // info.stride for name, info in PYRAMID.items()}
    features = {name: torch.randn(2, 32, side, side, generator=generator) for name, side in sides.items()}
    boxes = torch.tensor([[4.0, 4.0, 40.0, 36.0]])
    images = Images.from_list([torch.zeros(3, 64, 64, dtype=torch.uint8)] * 2)
    empty = Instances(boxes[:0], torch.zeros(0, dtype=torch.int64))
    return features, images, [Instances(boxes, torch.tensor([1])), empty]


@pytest.mark.parametrize("assign", ["center", "statistics"])
@pytest.mark.parametrize("quality", ["centerness", "iou"])
def test_images_without_objects_have_finite_losses(assign, quality):
    """Law: there is nothing to divide by, and nothing to learn but the background."""
    torch.manual_seed(0)
    head = FCOSHead(PYRAMID, 3, FCOSConfig(convolutions=1, assign=assign, quality=quality))
    features, images, objects = small_batch()
    outputs = head.loss(features, images, [objects[1], objects[1]])
    assert outputs["loss_box"] == 0 and outputs["loss_quality"] == 0 and outputs["loss_class"] > 0
    total_loss(outputs).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())
    assert head.loss(features, images, objects)["positives"].tolist()[0] > 0


def test_a_crowd_is_no_negative():
    """Law: an ignore region over the whole image leaves no point to learn the background from."""
    head = FCOSHead(PYRAMID, 3, FCOSConfig(convolutions=1))
    features, images, objects = small_batch()
    crowd = Instances(objects[1].boxes, objects[1].labels, ignored=torch.tensor([[0.0, 0.0, 64.0, 64.0]]))
    assert head.loss(features, images, [crowd, crowd])["loss_class"] == 0


def test_levels_have_the_names_of_the_pyramid(peer):
    """Law: our twin reads p3..p7, of which the neck makes the last two."""
    assert our_twin(peer).head.levels.names == LEVELS
