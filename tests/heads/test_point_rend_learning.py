"""PointRend's masks beside those of Mask R-CNN's branch, after the same short training."""

import numpy as np
import pytest
import torch
from torch import nn

from vertebra.data.shapes import SceneConfig, draw_scene
from vertebra.evaluation.boundary import boundary_iou, inner_boundary
from vertebra.heads import MaskBranchConfig, PointRendBranchConfig, RegionBranchConfig, RegionSamples
from vertebra.ops import paste_masks, total_loss
from vertebra.structures import Detections, FeatureInfo, Images, Instances


def shape_scenes() -> tuple[Images, list[Instances]]:
    """Return two generated images of about 256 pixels with seven large objects."""
    scenes = [draw_scene(SceneConfig(size=256), 0, "train", index) for index in (3, 5)]
    images = Images.from_list([torch.from_numpy(image.image.copy()).permute(2, 0, 1) for image in scenes], 32)
    height, width = images.padded_size
    targets = []
    for image in scenes:
        masks = torch.zeros(len(image.objects), height, width, dtype=torch.bool)
        for mask, drawn in zip(masks, image.objects, strict=True):
            mask[: drawn.mask.shape[0], : drawn.mask.shape[1]] = torch.from_numpy(drawn.mask)
        boxes = torch.tensor([drawn.box for drawn in image.objects], dtype=torch.float32)
        targets.append(Instances(boxes, torch.tensor([drawn.label for drawn in image.objects]), masks))
    return images, targets


def overfit(config: RegionBranchConfig, images: Images, targets: list[Instances]) -> tuple[float, float]:
    """Train a small network with a branch on the boxes of all objects; return the mean IoU of masks and boundaries."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 5, 2, 2), nn.ReLU(), nn.Conv2d(32, 32, 5, 2, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1)]
    network, branch = nn.Sequential(*layers), config.build({"p2": FeatureInfo(32, 4)}, 8)
    most = max(map(len, targets))
    rows = torch.stack([torch.arange(most) % len(target) for target in targets])
    boxes = torch.stack([target.boxes[index] for target, index in zip(targets, rows, strict=True)])
    labels = torch.stack([target.labels[index] for target, index in zip(targets, rows, strict=True)])
    valid = torch.stack([torch.arange(most) < len(target) for target in targets])
    pixels = images.pixels.float() / 127 - 1
    optimizer = torch.optim.AdamW([*network.parameters(), *branch.parameters()], lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        losses = branch.loss({"p2": network(pixels)}, RegionSamples(boxes, valid, labels, boxes, rows), targets)
        total_loss(losses).backward()
        optimizer.step()
    with torch.no_grad():
        values = branch.predict({"p2": network(pixels)}, boxes, labels)
    mask_ious, boundary_ious = [], []
    for target, value in zip(targets, values, strict=True):
        detections = Detections(target.boxes, target.labels, torch.ones(len(target)))
        found = branch.attach(detections, value[: len(target)], images.padded_size)
        for ours, truth in zip(paste_masks(found.masks, target.boxes), target.masks, strict=True):
            mask_ious.append(((ours & truth).sum() / (ours | truth).sum()).item())
            boundaries = [inner_boundary(mask.numpy().astype(np.uint8)) for mask in (ours, truth)]
            boundary_ious.append(boundary_iou(*boundaries))
    return sum(mask_ious) / len(mask_ious), sum(boundary_ious) / len(boundary_ious)


@pytest.mark.slow
def test_masks_are_sharper_than_those_of_the_mask_branch():
    """Learning: after the same 60 steps on two images, PointRend's masks of 224x224 have higher IoU, and their
    boundaries a clearly higher one, than masks of 28x28 (0.96 and 0.90 against 0.94 and 0.82)."""
    scenes = shape_scenes()
    mask_iou, boundary = overfit(MaskBranchConfig(levels=("p2",), convolutions=(32, 32)), *scenes)
    config = PointRendBranchConfig(channels=32, fc=(128,), point_head={"channels": (32, 32, 32)})
    sharp_mask_iou, sharp_boundary = overfit(config, *scenes)
    assert sharp_mask_iou > mask_iou > 0.9
    assert sharp_boundary > boundary + 0.04
