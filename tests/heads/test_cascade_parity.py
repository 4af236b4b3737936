"""Cascade R-CNN against detectron2's with the same weights and proposals; skipped if detectron2 is not installed.

detectron2's Python code is sufficient, its compiled extension is not needed. Each convention is also changed alone, and
the comparison must then fail.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from vertebra.heads import RCNNConfig, RCNNHead
from vertebra.heads.regions import Proposals
from vertebra.ops import pad_targets, split_losses, total_loss
from vertebra.structures import Detections

from ..helpers.regions import all_valid
from .test_cascade import CONFIG, NUM_CLASSES, PYRAMID, batch

d2_cascade = pytest.importorskip("detectron2.modeling.roi_heads.cascade_rcnn", reason="detectron2 is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

LEVELS = ("p2", "p3", "p4", "p5")
COUNT = 40
EVERY_SAMPLE = {"samples": 1000, "positive_fraction": 1.0}  # no random choice, on both sides
OURS = CONFIG.replace(box=EVERY_SAMPLE, cascade=tuple(stage.replace(**EVERY_SAMPLE) for stage in CONFIG.cascade))


def random_twins(config: RCNNConfig = OURS) -> tuple[RCNNHead, Any]:
    """Return our head under a convention, and detectron2's cascade with the same random weights."""
    torch.manual_seed(0)
    head = RCNNHead(PYRAMID, NUM_CLASSES, config)
    with torch.no_grad():
        for stage in head.box_branches():
            stage.class_logits.weight.normal_(std=0.3)
            stage.box_offsets.weight.normal_(std=0.3)
    twin = detectron2_cascade()
    for number, stage in enumerate(head.box_branches()):
        twin.box_head[number].fc1.load_state_dict(stage.fc[0].state_dict())
        twin.box_predictor[number].cls_score.load_state_dict(stage.class_logits.state_dict())
        twin.box_predictor[number].bbox_pred.load_state_dict(stage.box_offsets.state_dict())
    return head, twin


def detectron2_cascade() -> Any:
    """Build detectron2's cascade as its own config does, with one small fully connected layer per stage."""
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.matcher import Matcher
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
    from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers

    pooled = ShapeSpec(channels=16, height=7, width=7)
    weights = [(10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)]
    return d2_cascade.CascadeROIHeads(
        num_classes=NUM_CLASSES,
        batch_size_per_image=1000,
        positive_fraction=1.0,
        box_in_features=list(LEVELS),
        box_pooler=ROIPooler(7, [1 / PYRAMID[level].stride for level in LEVELS], 0, "ROIAlignV2"),
        box_heads=[FastRCNNConvFCHead(pooled, conv_dims=[], fc_dims=[32]) for _ in range(3)],
        box_predictors=[
            FastRCNNOutputLayers(
                ShapeSpec(channels=32), box2box_transform=Box2BoxTransform(weights=stage_weights),
                num_classes=NUM_CLASSES, test_score_thresh=0.05, cls_agnostic_bbox_reg=True,
            )
            for stage_weights in weights
        ],
        proposal_matchers=[Matcher([threshold], [0, 1]) for threshold in (0.5, 0.6, 0.7)],
    )  # fmt: skip


def random_proposals() -> Tensor:
    """Return proposals of two images, of which some lie near the objects."""
    generator = torch.Generator().manual_seed(5)
    _, images, targets = batch()
    rows = []
    for size, target in zip(images.sizes.tolist(), targets, strict=True):
        near = target.boxes.repeat(COUNT // 2, 1)[: COUNT // 2]
        near = near + torch.randn(near.shape, generator=generator) * 5
        corners = torch.rand(COUNT // 2, 2, generator=generator) * 60
        far = torch.cat([corners, corners + 10 + 40 * torch.rand(COUNT // 2, 2, generator=generator)], dim=1)
        limit = torch.tensor([size[1], size[0]] * 2)
        rows.append(torch.cat([near, far]).clamp(min=0).minimum(limit))
    return torch.stack(rows)


def detectron2_proposals(boxes: Tensor) -> list[Any]:
    from detectron2.structures import Boxes, Instances

    images = batch()[1]
    return [
        Instances(tuple(size), proposal_boxes=Boxes(rows), objectness_logits=torch.zeros(len(rows)))
        for size, rows in zip(images.sizes.tolist(), boxes, strict=True)
    ]


def losses(config: RCNNConfig = OURS) -> tuple[dict[str, Tensor], dict[str, Tensor], RCNNHead, Any, dict[str, Tensor]]:
    """Return our losses, detectron2's by our names, both heads, and the features, which require gradients."""
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    head, twin = random_twins(config)
    features, images, targets = batch()
    features = {name: level.requires_grad_() for name, level in features.items()}
    boxes = random_proposals()
    padded = pad_targets(targets, images)
    samples = head.box.sample(all_valid(boxes), padded)
    found, _ = split_losses(head._box_losses(features, images, samples, padded)[0])
    truth = [
        Instances(tuple(size), gt_boxes=Boxes(target.boxes), gt_classes=target.labels)
        for size, target in zip(images.sizes.tolist(), targets, strict=True)
    ]
    with EventStorage():
        _, expected = twin.train()(None, features, detectron2_proposals(boxes), truth)
    names = {"loss_class": "loss_cls", "loss_box": "loss_box_reg"}
    suffixes = ("", "_2", "_3")
    renamed = {
        ours + suffix: expected[f"{theirs}_stage{number}"]
        for number, suffix in enumerate(suffixes)
        for ours, theirs in names.items()
    }
    return found, renamed, head, twin, features


def test_losses_and_gradients_equal_detectron2s():
    """Oracle: six losses to 1e-5, and the gradients of the stages and of the pyramid to 1e-4 of the largest."""
    found, expected, head, twin, features = losses()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-5, atol=0, msg=name)
    total_loss(expected).backward()
    levels = {name: level.grad.clone() for name, level in features.items() if level.grad is not None}
    for level in features.values():
        level.grad = None
    total_loss(found).backward()
    assert set(levels) == set(LEVELS)
    pairs = [(features[name].grad, levels[name]) for name in LEVELS]
    for number, stage in enumerate(head.box_branches()):
        pairs.append((stage.fc[0].weight.grad, twin.box_head[number].fc1.weight.grad))
        pairs.append((stage.box_offsets.weight.grad, twin.box_predictor[number].bbox_pred.weight.grad))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


@torch.no_grad()
def detections(config: RCNNConfig = OURS) -> list[tuple[Detections, Any]]:
    """Return our detections and detectron2's of each image, from the same proposals."""
    head, twin = random_twins(config)
    features, images, _ = batch()
    boxes = random_proposals()
    proposals = Proposals(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool))
    head.rpn.propose = lambda *args, **options: proposals  # pyright: ignore[reportAttributeAccessIssue]
    expected, _ = twin.eval()(None, features, detectron2_proposals(boxes))
    return list(zip(head.predict(features, images), expected, strict=True))


def test_detections_equal_detectron2s():
    """Oracle: number, order, classes, scores to 1e-5 and boxes to a hundredth of a pixel."""
    for ours, theirs in detections():
        assert len(ours) == len(theirs) > 10
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.boxes, theirs.pred_boxes.tensor, rtol=0, atol=1e-2)
        assert torch.equal(ours.labels, theirs.pred_classes)


def change_last_stage(**changes: Any) -> RCNNConfig:
    """Return the conventions with fields of the last stage changed."""
    *earlier, last = OURS.cascade
    return OURS.replace(cascade=(*earlier, last.replace(**changes)))


@pytest.mark.parametrize(
    ("changes", "loss"),
    [
        ({"match_threshold": 0.5}, "loss_class_3"),
        ({"box_weights": (10.0, 10.0, 5.0, 5.0)}, "loss_box_3"),
        ({"beta": 1.0}, "loss_box_3"),
    ],
    ids=str,
)
def test_negative_control_losses(changes, loss):
    """Control: each convention of a stage changed alone fails the comparison of the losses."""
    found, expected, *_ = losses(change_last_stage(**changes))
    assert abs(found[loss].item() / expected[loss].item() - 1) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"box_weights": (10.0, 10.0, 5.0, 5.0)},
        {"score_threshold": 0.3},
        {"nms_threshold": 0.3},
        {"max_detections": 5},
    ],
    ids=str,
)
def test_negative_control_detections(changes):
    """Control: each convention of the last stage changed alone fails the comparison of the detections."""
    ours, theirs = detections(change_last_stage(**changes))[0]
    same_number = len(ours) == len(theirs)
    assert not (same_number and torch.allclose(ours.boxes, theirs.pred_boxes.tensor, rtol=0, atol=1e-2))
