"""torchvision's dense detectors as oracles: their features of two images, and how many detections two sides share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from vertebra.structures import Detections, Images, Instances

from .reference_detector import random_images

NUM_CLASSES = 5
LEVELS = ("p3", "p4", "p5", "p6", "p7")
SIZES = [(128, 160), (150, 200)]  # padded to 160 x 224, whose coarsest levels have odd sizes


def prepare(model: nn.Module) -> nn.Module:
    """Let a detector of torchvision take images as they are, and give it random weights that find something."""
    model.transform.resize = lambda image, target=None: (image, target)
    with torch.no_grad():
        for part in (model.head.classification_head, model.head.regression_head):
            for layer in part.conv.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight)
        model.head.classification_head.cls_logits.bias.fill_(-2)
    return model.eval()


@torch.no_grad()
def reference_features(model: nn.Module) -> tuple[ImageList, list[Tensor], Images]:
    """Return two images as torchvision has them, its features of them, and the images as ours."""
    pixels, images = random_images(SIZES)
    image_list, _ = model.transform(pixels)
    return image_list, list(model.backbone(image_list.tensors).values()), images


def by_level(maps: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return features by the names of our levels."""
    return dict(zip(LEVELS, maps, strict=True))


def targets() -> tuple[list[dict], list[Instances]]:
    """Return the objects of two images, as torchvision wants them and as ours; the second image has none."""
    boxes = torch.tensor([[10.0, 8.0, 60.0, 50.0], [40.0, 30.0, 120.0, 126.0], [4.0, 70.0, 25.0, 101.0]])
    ours = [Instances(boxes, torch.tensor([4, 1, 0])), Instances(boxes[:0], torch.zeros(0, dtype=torch.int64))]
    return [{"boxes": target.boxes, "labels": target.labels} for target in ours], ours


def shared_fractions(found: Sequence[Detections], expected: Sequence[dict]) -> list[tuple[float, int]]:
    """Return per image the fraction of torchvision's detections that ours has too, and how many torchvision has.

    The fraction is 0 if the two sides differ in number.
    """
    results = []
    for ours, theirs in zip(found, expected, strict=True):
        count = len(theirs["boxes"])
        if len(ours) != count:
            results.append((0.0, count))
            continue
        near = (ours.boxes[:, None] - theirs["boxes"]).abs().amax(dim=2) < 1e-2
        near &= (ours.scores[:, None] - theirs["scores"]).abs() < 1e-4
        near &= ours.labels[:, None] == theirs["labels"]
        results.append((near.any(dim=0).float().mean().item(), count))
    return results
