"""Pairs of equivalent models, ours and torchvision's, on the same images, for ``vertebra benchmark``."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.segmentation import deeplabv3_resnet50
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

import vertebra
from vertebra.heads import (
    HEADS,
    TORCHVISION_DEEPLAB,
    TORCHVISION_FCOS,
    TORCHVISION_RETINANET,
    DeepLabHead,
    HeadConfig,
    KeypointBranchConfig,
    MaskBranchConfig,
    RCNNConfig,
    required_keypoints,
    required_mask_format,
)
from vertebra.models import Model, from_torchvision_detector, from_torchvision_segmenter
from vertebra.necks import FPN, FPNConfig, Passthrough
from vertebra.ops import paste_masks, total_loss
from vertebra.structures import COCO_KEYPOINTS, VISIBLE, Images, Instances

CLASSES, PIXEL_CLASSES = 80, 21


class Pair(NamedTuple):
    """Our model and torchvision's, each with functions that compute its total training loss and its predictions."""

    ours: Model
    theirs: nn.Module
    images: Images
    our_loss: Callable[[], Tensor]
    their_loss: Callable[[], Tensor]
    our_inference: Callable[[Model], Any]
    """A function of our model, or of an optimized copy of it."""
    their_inference: Callable[[], Any]


def detector_pair(pixels: list[Tensor], device: torch.device, objects: int, name: str) -> Pair:
    """Return a detector with a ResNet-50-FPN in both libraries, with frozen norms and three trainable stages.

    Our detector has the default conventions of Vertebra or, if it is a one-stage detector, those of torchvision. Both
    have the same random weights, so that they have about the same proposals and detections. With masks, inference
    includes pasting them at the image size.
    """
    neck_config, head_config, build_theirs = DETECTORS[name]
    height, width = pixels[0].shape[1:]
    backbone = vertebra.create_backbone("resnet50", norm="frozen", freeze_at=2)
    neck = FPN(backbone.feature_info, neck_config)
    ours = Model(backbone, neck, HEADS.build(head_config, neck.feature_info, CLASSES)).to(device)
    theirs = build_theirs({"min_size": min(height, width), "max_size": max(height, width)}).to(device)
    theirs.get_submodule("backbone.body").load_state_dict(backbone.state_dict())
    ours.load_state_dict(_shared_weights(theirs, isinstance(head_config, RCNNConfig)))
    images = Images.from_list(pixels).to(device)
    masks = required_mask_format(head_config) is not None
    targets = [_objects(height, width, objects, seed, masks).to(device) for seed in range(len(pixels))]
    inputs = [image.to(device) / 255 for image in pixels]
    first_label = 1 if isinstance(head_config, RCNNConfig) else 0  # label 0 of torchvision's R-CNNs is background
    their_targets = [{"boxes": target.boxes, "labels": target.labels + first_label} for target in targets]
    if masks:
        for theirs_of_image, target in zip(their_targets, targets, strict=True):
            theirs_of_image["masks"] = (target.masks if target.masks is not None else target.boxes[:0]).to(torch.uint8)
    if required_keypoints(head_config) is not None:
        for theirs_of_image, target in zip(their_targets, targets, strict=True):
            theirs_of_image["keypoints"] = target.keypoints if target.keypoints is not None else target.boxes[:0]

    def their_loss() -> Tensor:
        return torch.stack(list(theirs(inputs, their_targets).values())).sum()

    def predict(model: Model) -> None:
        for detections in model.predict(images):
            if detections.masks is not None:
                paste_masks(detections.masks, detections.boxes)

    return Pair(
        ours, theirs, images, lambda: total_loss(ours(images, targets)), their_loss, predict, lambda: theirs(inputs)
    )


def _shared_weights(theirs: nn.Module, is_rcnn: bool) -> dict[str, Tensor]:
    """Return the weights of torchvision's detector for ours, whose background is the last class and has no boxes."""
    weights = from_torchvision_detector(theirs.state_dict())
    for part in ("weight", "bias") if is_rcnn else ():
        weights[f"head.box.class_logits.{part}"] = weights[f"head.box.class_logits.{part}"].roll(-1, dims=0)
        weights[f"head.box.box_offsets.{part}"] = weights[f"head.box.box_offsets.{part}"][4:]
    return weights


def their_backbone(**options: Any) -> BackboneWithFPN:
    """Return torchvision's ResNet-50-FPN with frozen norms and three trainable stages."""
    return resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3, **options
    )


def their_one_stage_backbone() -> BackboneWithFPN:
    """Return torchvision's ResNet-50-FPN with levels p3..p7, of which p6 is computed from p5."""
    return their_backbone(returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))


ONE_STAGE_LEVELS = ("c3", "c4", "c5")

DETECTORS: dict[str, tuple[FPNConfig, HeadConfig, Callable[[dict[str, Any]], nn.Module]]] = {
    "faster_rcnn": (
        FPNConfig(), RCNNConfig(), lambda sizes: FasterRCNN(their_backbone(), num_classes=CLASSES + 1, **sizes)
    ),
    "mask_rcnn": (
        FPNConfig(),
        RCNNConfig(mask=MaskBranchConfig()),
        lambda sizes: MaskRCNN(their_backbone(), num_classes=CLASSES + 1, **sizes),
    ),
    "keypoint_rcnn": (
        FPNConfig(),
        RCNNConfig(keypoint=KeypointBranchConfig()),
        lambda sizes: KeypointRCNN(their_backbone(), num_classes=CLASSES + 1, **sizes),
    ),
    "retinanet": (
        FPNConfig(levels=ONE_STAGE_LEVELS, extra="conv"),
        TORCHVISION_RETINANET,
        lambda sizes: RetinaNet(their_one_stage_backbone(), num_classes=CLASSES, **sizes),
    ),
    "fcos": (
        FPNConfig(levels=ONE_STAGE_LEVELS, extra="conv"),
        TORCHVISION_FCOS,
        lambda sizes: FCOS(their_one_stage_backbone(), num_classes=CLASSES, **sizes),
    ),
}  # fmt: skip
"""By model name: our neck and head, and a function that builds torchvision's detector, given the image sizes."""


def _objects(height: int, width: int, count: int, seed: int, masks: bool) -> Instances:
    """Return ``count`` objects with random boxes and random keypoints in them; each mask fills its box."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([width * 0.7, height * 0.7])
    sides = 20 + torch.rand(count, 2, generator=generator) * torch.tensor([width * 0.25, height * 0.25])
    boxes = torch.cat([corners, torch.minimum(corners + sides, torch.tensor([width, height]))], dim=1)
    bitmaps = None
    if masks:
        bitmaps = torch.zeros(count, height, width, dtype=torch.bool)
        for bitmap, (left, top, right, bottom) in zip(bitmaps, boxes.int().tolist(), strict=True):
            bitmap[top:bottom, left:right] = True
    fractions = torch.rand(count, len(COCO_KEYPOINTS), 2, generator=generator)
    points = boxes[:, None, :2] + fractions * (boxes[:, None, 2:] - boxes[:, None, :2])
    keypoints = torch.cat([points, torch.full_like(points[..., :1], VISIBLE)], dim=2)
    return Instances(boxes, torch.arange(count) * 7 % CLASSES, bitmaps, keypoints=keypoints)


def deeplab_pair(pixels: list[Tensor], device: torch.device, objects: int = 0) -> Pair:
    """Return DeepLabv3 R50 at output stride 8 with the auxiliary head in both libraries, with the same weights.

    ``objects`` is not used: the targets are label maps.
    """
    height, width = pixels[0].shape[1:]
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True, num_classes=PIXEL_CLASSES)
    backbone = vertebra.create_backbone("resnet50", output_stride=8)
    head = DeepLabHead(backbone.feature_info, PIXEL_CLASSES, TORCHVISION_DEEPLAB)
    ours = Model(backbone, Passthrough(backbone.feature_info), head)
    ours.load_state_dict(from_torchvision_segmenter(theirs.state_dict()))
    ours, theirs = ours.to(device), theirs.to(device)
    images = Images.from_list(pixels, divisor=1).to(device)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randint(0, PIXEL_CLASSES, (height, width), generator=generator).to(device) for _ in pixels]
    truth = torch.stack(maps)
    inputs = ours.preprocess(images)
    pooling = theirs.classifier.get_submodule("0.convs.4")

    def their_loss() -> Tensor:
        pooling.train(len(pixels) > 1)  # with one image, batch norm after global pooling has one value and would raise
        logits = theirs(inputs)
        return F.cross_entropy(logits["out"], truth) + 0.4 * F.cross_entropy(logits["aux"], truth)

    return Pair(
        ours,
        theirs,
        images,
        lambda: total_loss(ours(images, maps)),
        their_loss,
        lambda model: model.predict(images),
        lambda: theirs(inputs),
    )


PAIRS: dict[str, Callable[[list[Tensor], torch.device, int], Pair]] = {
    **{name: partial(detector_pair, name=name) for name in DETECTORS},
    "deeplabv3": deeplab_pair,
}
"""By model name: a function of the images (c h w), the device and the number of objects per image in training."""
