"""A RetinaNet (1708.02002) as a user would write it with the functions in ``ops``, to show how long a dense head is.

It is registered from outside the package, learns two images, and equals torchvision's with the same weights.
"""

import math
from collections.abc import Mapping
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.ops import sigmoid_focal_loss

from vertebra import ops
from vertebra.data import CocoConfig, ResizeConfig, build_dataset, build_transform, collate
from vertebra.heads import HEADS, DetectionHead, HeadConfig
from vertebra.models import ModelConfig, build_model
from vertebra.necks import FPNConfig
from vertebra.structures import Detections, FeatureInfo, Features, Images, Instances

from ..helpers.tiny import BACKBONE

# The head begins here.


class RetinaNetConfig(HeadConfig):
    name: Literal["my_retinanet"] = "my_retinanet"
    levels: tuple[str, ...] = ("p3", "p4", "p5", "p6", "p7")
    anchor_sizes: tuple[tuple[float, ...], ...]
    round_anchors: bool = False
    convolutions: int = 4


class RetinaNetHead(DetectionHead):
    def __init__(self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: RetinaNetConfig) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        strides = [feature_info[level].stride for level in config.levels]
        self.anchors = ops.PyramidAnchors(strides, config.anchor_sizes, (0.5, 1.0, 2.0), rounded=config.round_anchors)
        channels, per_cell = feature_info[config.levels[0]].channels, self.anchors.per_cell
        self.class_tower, self.box_tower = self._tower(channels), self._tower(channels)
        self.class_logits = nn.Conv2d(channels, per_cell * num_classes, 3, padding=1)
        self.box_offsets = nn.Conv2d(channels, per_cell * 4, 3, padding=1)
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.constant_(self.class_logits.bias, -math.log(99))  # initial probability of every class: 0.01

    def _tower(self, channels: int) -> nn.Sequential:
        blocks = (ops.conv_block(channels, channels, 3, activation="relu") for _ in range(self.config.convolutions))
        return nn.Sequential(*blocks)

    def forward(self, features: Features, images: Images) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Compute the anchors, class logits and box offsets of every level."""
        levels = [features[level] for level in self.config.levels]
        anchors = self.anchors([tuple(level.shape[-2:]) for level in levels], images.padded_size)
        logits = [ops.flatten_cells(self.class_logits(self.class_tower(level)), self.num_classes) for level in levels]
        offsets = [ops.flatten_cells(self.box_offsets(self.box_tower(level)), 4) for level in levels]
        return list(zip(anchors, logits, offsets, strict=True))

    def padded_loss(self, features: Features, images: Images, targets: ops.PaddedTargets) -> dict[str, Tensor]:
        anchors, logits, offsets = (torch.cat(column, dim=-2) for column in zip(*self(features, images), strict=True))
        match = ops.assign_boxes(anchors, targets, (0.4, 0.5), keep_best=True)
        positive, known = match.labels == ops.POSITIVE, match.labels != ops.IGNORED
        classes = targets.labels.gather(1, match.target_indices)
        truth = F.one_hot(classes, self.num_classes) * positive[:, :, None]
        focal = sigmoid_focal_loss(logits, truth.float()).sum(dim=2) * known
        boxes = ops.gather_rows(targets.boxes, match.target_indices)
        errors = (offsets - ops.encode_boxes(boxes, anchors)).abs().sum(dim=2) * positive
        count = positive.sum(dim=1).clamp(min=1)
        losses = {"loss_class": (focal.sum(dim=1) / count).mean(), "loss_box": (errors.sum(dim=1) / count).mean()}
        return losses | {"positives": positive.sum(dim=1)}

    def predict(self, features: Features, images: Images) -> list[Detections]:
        rows = []
        for anchors, logits, offsets in self(features, images):
            scores = logits.sigmoid()
            best = ops.top_class_scores(scores.masked_fill(scores <= 0.05, ops.NO_CANDIDATE), 1000)
            boxes = ops.decode_boxes(ops.gather_rows(offsets, best.indices), anchors[best.indices])
            rows.append((ops.clip_boxes(boxes, images.sizes), best.scores, best.labels))
        boxes, scores, labels = (torch.cat(column, dim=1) for column in zip(*rows, strict=True))
        return ops.select_detections(boxes, scores, labels, nms_threshold=0.5, count=300).unpad()


# The head ends here.


@pytest.fixture
def registered_head(monkeypatch):
    """Register the head for one test, as a user's file does with a decorator."""
    monkeypatch.setattr(HEADS, "_entries", dict(HEADS._entries))
    HEADS.register("my_retinanet", RetinaNetConfig)(RetinaNetHead)


def test_user_defined_dense_head_learns_two_images(registered_head, shapes):
    """Learning: after a few steps the best detections of two generated images are their objects."""
    annotations = shapes / "annotations" / "instances_train.json"
    data = build_dataset(CocoConfig(images=shapes / "train", annotations=annotations))
    transform = build_transform(ResizeConfig(short_sides=(64,), flip=0.0))
    head = {
        "name": "my_retinanet",
        "levels": ("p2", "p3", "p4"),
        "anchor_sizes": [[4 * stride * 2 ** (step / 3) for step in range(3)] for stride in (4, 8, 16)],
        "convolutions": 1,
    }
    torch.manual_seed(0)
    model = build_model(ModelConfig(backbone=BACKBONE, neck=FPNConfig(channels=32), head=head), data.class_names)
    samples = [transform(data.read(index), 0, index) for index in range(len(data))]
    batch = collate([sample for sample in samples if len(sample.target)][:2], model.size_divisor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(100):
        optimizer.zero_grad()
        ops.total_loss(model(batch.images, batch.targets)).backward()
        optimizer.step()
    # Evaluate with batch statistics: two images are too few for running statistics.
    for detections, target in zip(model.predict(batch.images), batch.targets, strict=True):
        best = detections[: len(target)]
        overlaps = ops.pairwise_iou(target.boxes, best.boxes) * (target.labels[:, None] == best.labels)
        assert (overlaps.amax(dim=1) > 0.7).all() and (best.scores > 0.5).all()


CLASSES, CHANNELS, SIZE = 5, 16, 128
LEVELS = {f"p{level}": FeatureInfo(CHANNELS, 2**level) for level in range(3, 8)}
SIZES = tuple((size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in (32, 64, 128, 256, 512))


class GivenFeatures(nn.Module):
    """A backbone for torchvision's RetinaNet that returns the same features for any images."""

    out_channels = CHANNELS

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features

    def forward(self, pixels: Tensor) -> Features:
        return self.features


@pytest.fixture(scope="module")
def reference_pair() -> tuple[RetinaNet, RetinaNetHead, Features]:
    """Return torchvision's RetinaNet and this one with the same random weights, and the features of two images."""
    torch.manual_seed(0)
    features = {
        name: torch.randn(2, CHANNELS, SIZE // info.stride, SIZE // info.stride) for name, info in LEVELS.items()
    }
    reference = RetinaNet(GivenFeatures(features), CLASSES)
    reference.transform.resize = lambda image, target=None: (image, target)
    ours = RetinaNetHead(LEVELS, CLASSES, RetinaNetConfig(anchor_sizes=SIZES, round_anchors=True))
    for parameter in reference.head.parameters():
        nn.init.normal_(parameter, std=0.1)
    for tower, head in (
        (ours.class_tower, reference.head.classification_head),
        (ours.box_tower, reference.head.regression_head),
    ):
        tower.load_state_dict(head.conv.state_dict())
    outputs = {
        ours.class_logits: reference.head.classification_head.cls_logits,
        ours.box_offsets: reference.head.regression_head.bbox_reg,
    }
    for layer, theirs in outputs.items():
        for name, tensor in theirs.state_dict().items():  # torchvision orders the anchors of a cell by ratio
            layer.get_parameter(name).data = tensor.unflatten(0, (3, 3, -1)).transpose(0, 1).flatten(0, 2).clone()
    return reference, ours, features


def test_losses_equal_torchvisions(reference_pair):
    """Oracle: torchvision's RetinaNet on its features: anchors, assignment, focal loss and encoded boxes."""
    reference, ours, features = reference_pair
    boxes = torch.tensor([[10.0, 8.0, 60.0, 50.0], [40.0, 30.0, 120.0, 126.0]])
    targets = [Instances(boxes, torch.tensor([4, 1])), Instances(boxes[:0], torch.zeros(0, dtype=torch.int64))]
    theirs = [{"boxes": target.boxes, "labels": target.labels} for target in targets]
    expected = reference.train()([torch.zeros(3, SIZE, SIZE)] * 2, theirs)
    losses, metrics = ops.split_losses(ours.loss(features, images_of(2), targets))
    torch.testing.assert_close(losses["loss_class"], expected["classification"])
    torch.testing.assert_close(losses["loss_box"], expected["bbox_regression"])
    assert metrics["positives"].tolist()[0] > 0 and metrics["positives"].tolist()[1] == 0


@torch.no_grad()
def test_detections_equal_torchvisions(reference_pair):
    """Oracle: torchvision's RetinaNet: decoding, the best of each level, NMS within classes; every detection."""
    reference, ours, features = reference_pair
    expected = reference.eval()([torch.zeros(3, SIZE, SIZE)] * 2)
    for found, theirs in zip(ours.predict(features, images_of(2)), expected, strict=True):
        assert len(found) == len(theirs["boxes"]) > 100
        torch.testing.assert_close(found.scores, theirs["scores"])
        order, their_order = (sort_rows(boxes) for boxes in (found.boxes, theirs["boxes"]))
        torch.testing.assert_close(found.boxes[order], theirs["boxes"][their_order], atol=1e-3, rtol=0)
        assert torch.equal(found.labels[order], theirs["labels"][their_order])


def images_of(count: int) -> Images:
    return Images.from_list([torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)] * count, divisor=1)


def sort_rows(boxes: Tensor) -> Tensor:
    """Return an order of boxes that does not depend on equal scores."""
    return (boxes.double().round(decimals=2) * torch.tensor([1e9, 1e6, 1e3, 1.0])).sum(dim=1).argsort()
