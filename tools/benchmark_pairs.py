"""Pairs of equivalent models, ours and torchvision's, on the same images, for ``vertebra benchmark``."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.segmentation import deeplabv3_resnet50
from torchvision.ops.misc import FrozenBatchNorm2d

import vertebra
from vertebra.heads import TORCHVISION_DEEPLAB, DeepLabHead, MaskBranchConfig, RCNNConfig, RCNNHead
from vertebra.models import Model, from_torchvision_segmenter
from vertebra.necks import FPN, Passthrough
from vertebra.ops import paste_masks
from vertebra.structures import Images, Instances

OBJECTS, CLASSES, PIXEL_CLASSES = 10, 80, 21


class Pair(NamedTuple):
    """Our model and torchvision's, each with functions that compute its training losses and its predictions."""

    ours: nn.Module
    theirs: nn.Module
    our_losses: Callable[[], Mapping[str, Tensor]]
    their_losses: Callable[[], Mapping[str, Tensor]]
    our_inference: Callable[[], Any]
    their_inference: Callable[[], Any]


def rcnn_pair(pixels: list[Tensor], device: torch.device, masks: bool) -> Pair:
    """Return Faster or Mask R-CNN R50-FPN in both libraries, with frozen norms and three trainable stages.

    Ours uses this library's default conventions. With masks, inference includes pasting them to the image size.
    """
    height, width = pixels[0].shape[1:]
    backbone = vertebra.create_backbone("resnet50", norm="frozen", freeze_at=2)
    neck = FPN(backbone.feature_info)
    config = RCNNConfig(mask=MaskBranchConfig() if masks else None)
    ours = Model(backbone, neck, RCNNHead(neck.feature_info, CLASSES, config)).to(device)
    their_backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    model_class = MaskRCNN if masks else FasterRCNN
    sizes = {"min_size": min(height, width), "max_size": max(height, width)}
    theirs = model_class(their_backbone, num_classes=CLASSES + 1, **sizes).to(device)
    theirs.backbone.get_submodule("body").load_state_dict(backbone.state_dict())
    images = Images.from_list(pixels).to(device)
    objects = [_objects(height, width, seed, masks) for seed in range(len(pixels))]
    targets = [instances.to(device) for instances in objects]
    inputs = [image.to(device) / 255 for image in pixels]
    their_targets = [{"boxes": target.boxes, "labels": target.labels + 1} for target in targets]
    if masks:
        for theirs_of_image, target in zip(their_targets, targets, strict=True):
            theirs_of_image["masks"] = (target.masks if target.masks is not None else target.boxes[:0]).to(torch.uint8)

    def predict() -> None:
        for detections in ours.predict(images):
            if detections.masks is not None:
                paste_masks(detections.masks, detections.boxes)

    return Pair(
        ours, theirs, lambda: ours(images, targets), lambda: theirs(inputs, their_targets), predict,
        lambda: theirs(inputs),
    )  # fmt: skip


def _objects(height: int, width: int, seed: int, masks: bool) -> Instances:
    """Return ``OBJECTS`` objects with random boxes; each mask fills its box."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(OBJECTS, 2, generator=generator) * torch.tensor([width * 0.7, height * 0.7])
    sides = 20 + torch.rand(OBJECTS, 2, generator=generator) * torch.tensor([width * 0.25, height * 0.25])
    boxes = torch.cat([corners, torch.minimum(corners + sides, torch.tensor([width, height]))], dim=1)
    bitmaps = None
    if masks:
        bitmaps = torch.zeros(OBJECTS, height, width, dtype=torch.bool)
        for bitmap, (left, top, right, bottom) in zip(bitmaps, boxes.int().tolist(), strict=True):
            bitmap[top:bottom, left:right] = True
    return Instances(boxes, torch.arange(OBJECTS) * 7, bitmaps)


def deeplab_pair(pixels: list[Tensor], device: torch.device) -> Pair:
    """Return DeepLabv3 R50 at output stride 8 with the auxiliary head in both libraries, with the same weights."""
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

    def their_losses() -> dict[str, Tensor]:
        pooling.train(len(pixels) > 1)  # with one image, batch norm after global pooling has one value and would raise
        logits = theirs(inputs)
        return {
            "loss_semantic": F.cross_entropy(logits["out"], truth),
            "loss_auxiliary": 0.4 * F.cross_entropy(logits["aux"], truth),
        }

    return Pair(
        ours, theirs, lambda: ours(images, maps), their_losses, lambda: ours.predict(images), lambda: theirs(inputs)
    )


PAIRS: dict[str, Callable[[list[Tensor], torch.device], Pair]] = {
    "faster_rcnn": lambda pixels, device: rcnn_pair(pixels, device, masks=False),
    "mask_rcnn": lambda pixels, device: rcnn_pair(pixels, device, masks=True),
    "deeplabv3": deeplab_pair,
}
