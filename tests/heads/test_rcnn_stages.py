"""The stages and branches of an R-CNN, each alone: what a cascade and additional branches rely on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import clip_boxes_to_image

from vertebra.heads import (
    HEADS,
    BoxBranch,
    BoxBranchConfig,
    BoxOutput,
    MaskBranchConfig,
    Proposals,
    RCNNConfig,
    RCNNHead,
    RegionBranch,
    RegionBranchConfig,
    RegionPooler,
    RegionRows,
    RegionSamples,
    RPNConfig,
    proposal_recall,
    required_mask_format,
)
from vertebra.ops import (
    PaddedDetections,
    PaddedTargets,
    RoIAlignConfig,
    pad_targets,
    pairwise_iou,
    split_losses,
    total_loss,
)
from vertebra.structures import Detections, FeatureInfo, Features, Images, Instances, MaskFormat

from ..helpers.regions import pad_to

CLASSES, CHANNELS, SIZE = 3, 8, (96, 128)
INFO = {f"p{level}": FeatureInfo(CHANNELS, 2**level) for level in (2, 3, 4, 5)}
SMALL = BoxBranchConfig(fc=(16,), samples=32)


def scene() -> tuple[Features, Images, list[Instances]]:
    """Draw features of two images, one with two objects and a crowd, one with none."""
    generator = torch.Generator().manual_seed(0)
    features = {
        name: torch.randn(2, CHANNELS, SIZE[0] // info.stride, SIZE[1] // info.stride, generator=generator)
        for name, info in INFO.items()
    }
    images = Images(torch.zeros(2, 3, *SIZE, dtype=torch.uint8), torch.tensor([SIZE, (80, 100)]))
    boxes = torch.tensor([[10.0, 12.0, 60.0, 70.0], [50.0, 30.0, 120.0, 90.0]])
    crowd = torch.tensor([[0.0, 70.0, 40.0, 96.0]])
    nothing = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    return features, images, [Instances(boxes, torch.tensor([2, 0]), ignored=crowd), nothing]


def proposals_near(target: Instances, count: int = 20) -> Proposals:
    """Draw proposals for two images around the objects of the first; the last three are padding."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.arange(count) % len(target)
    boxes = target.boxes[rows] + torch.randn(count, 4, generator=generator) * 4
    valid = (torch.arange(count) < count - 3).expand(2, count)
    return Proposals(boxes.expand(2, count, 4) * valid[:, :, None], valid)


def build_branch(**changes) -> BoxBranch:
    torch.manual_seed(0)
    branch = BoxBranch(INFO, CLASSES, BoxBranchConfig(**{**SMALL.model_dump(), **changes}))
    nn.init.normal_(branch.box_offsets.weight, std=0.1)
    nn.init.normal_(branch.class_logits.weight, std=0.5)
    return branch


@pytest.mark.parametrize("class_agnostic", [True, False])
@torch.no_grad()
def test_refined_boxes_equal_torchvisions_decoding(class_agnostic):
    """Oracle: torchvision's BoxCoder and clipping, box by box with the offsets of its class."""
    features, images, targets = scene()
    branch, proposals = build_branch(class_agnostic=class_agnostic), proposals_near(targets[0])
    output = branch(features, proposals)
    labels = torch.arange(40).view(2, 20) % (CLASSES + 1)  # background among them
    likeliest = output.logits[:, :, :CLASSES].argmax(dim=2)
    for given, classes in ((labels, torch.where(labels < CLASSES, labels, likeliest)), (None, likeliest)):
        refined = branch.refine(output, proposals, images, given)
        for image, size in enumerate(images.sizes.tolist()):
            for row in range(20):
                column = 0 if class_agnostic else classes[image, row]
                offsets, box = output.offsets[image, row, column][None], proposals.boxes[image, row][None]
                expected = clip_boxes_to_image(
                    BoxCoder(branch.config.box_weights).decode_single(offsets, box), (size[0], size[1])
                )
                if refined.valid[image, row]:
                    torch.testing.assert_close(refined.boxes[image, row], expected[0], atol=1e-4, rtol=1e-5)
        assert torch.equal(refined.valid, proposals.valid)
        assert refined.boxes[~refined.valid].eq(0).all()


def test_refined_box_outside_the_image_is_no_proposal():
    """By hand: moved by its width to the right, out of an image of 100 pixels, a box has no area."""
    branch, (_, images, _) = build_branch(class_agnostic=True), scene()
    proposals = Proposals(torch.tensor([[[90.0, 10.0, 100.0, 20.0]]] * 2), torch.ones(2, 1, dtype=torch.bool))
    offsets = torch.tensor([10.0, 0.0, 0.0, 0.0]).expand(2, 1, 1, 4)
    refined = branch.refine(BoxOutput(torch.zeros(2, 1, CLASSES + 1), offsets), proposals, images)
    assert refined.valid.tolist() == [[True], [False]]
    assert refined.boxes[0, 0].tolist() == [100.0, 10.0, 110.0, 20.0]


def cascade_losses(stages: Sequence[BoxBranch], features: Features, images: Images, targets, proposals: Proposals):
    """Run stages one after another, as a cascade does (1712.00726), and return the losses of each."""
    losses = []
    for stage in stages:
        samples = stage.sample(proposals, pad_targets(targets, images))
        output = stage(features, samples.proposals)
        losses.append(split_losses(stage.loss(output, samples))[0])
        proposals = stage.refine(output, samples.proposals, images, samples.labels)
    return losses, proposals


def test_cascade_of_two_stages_improves_boxes():
    """Learning: two stages, the second on the boxes that the first refines, overfit a scene; each stage improves its
    boxes."""
    features, images, targets = scene()
    proposals = proposals_near(targets[0])
    torch.manual_seed(0)
    stages = nn.ModuleList(
        BoxBranch(INFO, CLASSES, BoxBranchConfig(fc=(64,), samples=16, class_agnostic=True, match_threshold=threshold))
        for threshold in (0.5, 0.7)
    )
    optimizer = torch.optim.AdamW(stages.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        losses, _ = cascade_losses(stages, features, images, targets, proposals)
        sum(total_loss(stage_losses) for stage_losses in losses).backward()
        optimizer.step()

    def mean_iou(boxes: Tensor) -> float:
        return pairwise_iou(targets[0].boxes, boxes[0, :17]).amax(dim=0).mean().item()

    with torch.no_grad():
        quality, current = [mean_iou(proposals.boxes)], proposals
        for stage in stages:
            output = stage(features, current)
            current = stage.refine(output, current, images)
            quality.append(mean_iou(current.boxes))
        found = stages[-1].detect(output, stages[-1].scores(output), current, images).unpad()[0]
    assert quality[0] < quality[1] < quality[2] and quality[2] > 0.9
    assert found.labels[:2].sort().values.tolist() == [0, 2]


class SizeBranchConfig(RegionBranchConfig):
    """A branch for these tests, which predicts the logarithm of an object's area."""

    pool: RoIAlignConfig = RoIAlignConfig(size=3)

    @property
    def mask_format(self) -> MaskFormat | None:
        return None

    def build(self, feature_info: Mapping[str, FeatureInfo], num_classes: int) -> "SizeBranch":
        return SizeBranch(feature_info, num_classes, self)


class SizeBranch(RegionBranch):
    def __init__(self, feature_info: Mapping[str, FeatureInfo], num_classes: int, config: SizeBranchConfig) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pool = RegionPooler("size branch", feature_info, None, config.pool)
        self.linear = nn.Linear(self.pool.channels * config.pool.size**2, 1)

    def forward(self, features: Features, valid: Tensor, boxes: Tensor) -> Tensor:
        rows = RegionRows(valid)
        return rows.pad(self.linear(self.pool(features, rows.images, rows.take(boxes)).flatten(1))[:, 0])

    def loss(self, features: Features, samples: RegionSamples, targets: PaddedTargets) -> dict[str, Tensor]:
        positive = samples.valid & (samples.labels < self.num_classes)
        sides = samples.target_boxes[..., 2:] - samples.target_boxes[..., :2]
        errors = (self(features, samples.valid, samples.boxes) - sides.clamp(min=1).log().sum(dim=-1)).abs() * positive
        return {"loss_size": errors.sum() / positive.sum().clamp(min=1), "size_errors": errors.detach()[positive]}

    def predict(self, features: Features, detections: PaddedDetections) -> Tensor:
        return self(features, detections.valid, detections.boxes).exp()

    def attach(self, detections: Detections, values: Tensor, size: tuple[int, int]) -> Detections:
        return replace(detections, scores=values / (size[0] * size[1]))  # there is no field for it


class SizedRCNNConfig(RCNNConfig):
    name: Literal["sized_rcnn"] = "sized_rcnn"  # pyright: ignore[reportIncompatibleVariableOverride]
    size: SizeBranchConfig | None = SizeBranchConfig()


@pytest.fixture
def registered_head(monkeypatch):
    """Register the head with the size branch for one test, as a user's file does."""
    monkeypatch.setattr(HEADS, "_entries", dict(HEADS._entries))
    HEADS.register("sized_rcnn", SizedRCNNConfig)(RCNNHead)


def test_user_defined_branch_trains_and_predicts(registered_head):
    """Law: the R-CNN head trains and predicts with an additional branch that is a field of its config, and lists its
    parts."""
    features, images, targets = scene()
    rpn = RPNConfig(anchor_sizes=((16.0,), (32.0,), (64.0,), (128.0,)), post_nms=(40, 40))
    torch.manual_seed(0)
    box = BoxBranchConfig(**{**SMALL.model_dump(), "score_threshold": 0.0})
    head = HEADS.build(SizedRCNNConfig(rpn=rpn, box=box, mask=MaskBranchConfig(convolutions=(8,))), INFO, CLASSES)
    assert head.dense_parts == ("rpn", "box", "mask", "size")
    assert {name.split(".")[0] for name, _ in head.named_parameters()} == {"rpn", "box", "mask", "size"}
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[0, 12:70, 10:60], masks[1, 30:90, 50:120] = True, True
    no_masks = torch.zeros(0, *SIZE, dtype=torch.bool)
    images = Images(images.pixels, torch.tensor([SIZE, SIZE]))
    targets = [targets[0].replace(masks=masks), targets[1].replace(masks=no_masks)]
    losses, metrics = split_losses(head.loss(features, images, targets))
    assert list(losses)[-2:] == ["loss_mask", "loss_size"] and "size_errors" in metrics
    total_loss(losses).backward()
    assert head.size.linear.weight.grad.abs().sum() > 0
    with torch.no_grad():
        predictions = head.predict(features, images)
        padded, values = head.detect(features, images)
    assert set(values) == {"mask", "size"} and values["size"].shape == padded.valid.shape
    assert all(found.masks is not None and len(found) > 0 for found in predictions)
    expected = values["size"][0][padded.valid[0]] / (SIZE[0] * SIZE[1])
    torch.testing.assert_close(predictions[0].scores, expected)


def test_branch_set_to_none_is_not_built(registered_head):
    """By hand: no part and no parameters of it."""
    head = HEADS.build(SizedRCNNConfig(size=None), INFO, CLASSES)
    assert head.dense_parts == ("rpn", "box") and not hasattr(head, "size")


@pytest.mark.parametrize(
    ("mask", "expected"),
    [(None, None), (MaskBranchConfig(), "bitmaps"), (MaskBranchConfig(truth="polygons"), "polygons")],
)
def test_required_mask_format_of_a_head(mask, expected):
    """By hand: none without a mask branch; otherwise that of the mask branch, whatever other branches there are."""
    assert required_mask_format(RCNNConfig(mask=mask)) == expected
    assert required_mask_format(SizedRCNNConfig(mask=mask)) == expected


def test_proposal_recall():
    """By hand: one object found exactly, one overlapped by a third, one overlapped by padding only; an image without
    objects."""

    def objects(*boxes: list[float]) -> Instances:
        return Instances(torch.tensor(boxes).view(-1, 4), torch.zeros(len(boxes), dtype=torch.int64))

    targets = [objects([0.0, 0, 10, 10], [20.0, 0, 30, 10]), objects([0.0, 0, 10, 10]), objects()]
    boxes = torch.zeros(3, 2, 4)
    boxes[0, 0], boxes[0, 1], boxes[1, 0] = (
        torch.tensor(box) for box in ([0.0, 0, 10, 10], [25.0, 0, 35, 10], [0.0, 0, 10, 10])
    )
    valid = torch.tensor([[True, True], [False, False], [True, True]])
    padded = pad_to(SIZE, targets)
    for threshold, expected in ((0.5, [1, 0, 0]), (0.3, [1, 1, 0])):
        recalled = proposal_recall(Proposals(boxes, valid), padded, threshold)
        assert recalled[padded.valid.flatten()].tolist() == expected
        assert recalled[~padded.valid.flatten()].isnan().all()


def test_logged_positives_equal_those_of_the_losses():
    """Oracle: the head's own sample, drawn again with the same seed."""
    features, images, targets = scene()
    torch.manual_seed(0)
    head = RCNNHead(INFO, CLASSES, RCNNConfig(rpn=RPNConfig(samples=32), box=SMALL))
    torch.manual_seed(3)
    _, metrics = split_losses(head.loss(features, images, targets))
    torch.manual_seed(3)
    dense = head.rpn(features, images)
    padded = pad_targets(targets, images)
    head.rpn.loss(dense, padded)
    samples = head.box.sample(head.rpn.propose(dense, images, training=True), padded)
    assert torch.equal(metrics["box_positives"], (samples.labels < CLASSES).sum(dim=1))
    assert metrics["box_positives"].tolist()[0] > 0 and metrics["box_positives"].tolist()[1] == 0
    assert torch.equal(metrics["rpn_recall"].isnan(), ~padded.valid.flatten())
    assert 1 <= metrics["rpn_positives"][0] <= 16  # half of 32
