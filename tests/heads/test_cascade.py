"""Cascade R-CNN (1712.00726, detectron2's conventions) against plain loops over images, stages and boxes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from vertebra.heads import CASCADE, HEADS, MaskBranchConfig, Proposals, RCNNConfig, RCNNHead, class_rows_by_tensor
from vertebra.ops import pad_targets, scale_gradient, split_losses, total_loss
from vertebra.structures import FeatureInfo, Images, Instances

PYRAMID = {f"p{level}": FeatureInfo(16, 2**level) for level in range(2, 7)}
NUM_CLASSES = 3
SMALL = {"fc": (32,), "samples": 64, "score_threshold": 0.05}
CONFIG = CASCADE.replace(
    rpn={"samples": 64, "pre_nms": (200, 200), "post_nms": (60, 60)},
    box=SMALL,
    cascade=tuple(stage.replace(**SMALL) for stage in CASCADE.cascade),
)


@pytest.fixture(scope="module")
def head() -> RCNNHead:
    """Return a cascade with random weights that finds something and moves boxes."""
    torch.manual_seed(0)
    head = RCNNHead(PYRAMID, NUM_CLASSES, CONFIG)
    with torch.no_grad():
        for stage in head.box_branches():
            stage.class_logits.weight.normal_(std=0.3)
            stage.box_offsets.weight.normal_(std=0.3)
    return head


def batch() -> tuple[dict[str, Tensor], Images, list[Instances]]:
    """Return random features of two images of different sizes; the second image has one object."""
    generator = torch.Generator().manual_seed(1)
    features = {
        name: torch.randn(2, 16, 128 // info.stride, 160 // info.stride, generator=generator)
        for name, info in PYRAMID.items()
    }
    images = Images.from_list(
        [torch.zeros(3, 128, 160, dtype=torch.uint8), torch.zeros(3, 100, 130, dtype=torch.uint8)]
    )
    boxes = torch.tensor([[10.0, 8.0, 60.0, 50.0], [40.0, 30.0, 120.0, 126.0], [4.0, 70.0, 25.0, 101.0]])
    return features, images, [Instances(boxes, torch.tensor([2, 1, 0])), Instances(boxes[:1], torch.tensor([1]))]


def decode_plainly(box: Tensor, offsets: Tensor, weights: tuple[float, ...], size: Tensor) -> Tensor:
    """Return the refined box, clipped to an image of (height, width) ``size`` (1311.2524 Appendix C)."""
    width, height = box[2] - box[0], box[3] - box[1]
    dx, dy, dw, dh = (offset / weight for offset, weight in zip(offsets, weights, strict=True))
    x, y = box[0] + width / 2 + dx * width, box[1] + height / 2 + dy * height
    limit = torch.log(torch.tensor(1000 / 16))
    half_width, half_height = width * dw.clamp(max=limit).exp() / 2, height * dh.clamp(max=limit).exp() / 2
    limits = torch.stack([size[1], size[0], size[1], size[0]]).float()
    refined = torch.stack([x - half_width, y - half_height, x + half_width, y + half_height])
    return torch.minimum(refined.clamp(min=0), limits)


def test_losses_equal_plain_loops(head):
    """Oracle: stage by stage, every box is moved, matched with the stage's IoU and compared with its object alone."""
    features, images, targets = batch()
    torch.manual_seed(3)
    found, metrics = split_losses(head.loss(features, images, targets))
    torch.manual_seed(3)
    dense = head.rpn(features, images)
    padded = pad_targets(targets, images)
    head.rpn.loss(dense, padded)  # draws the random numbers of its own sample
    samples = head.box.sample(head.rpn.propose(dense, images, training=True), padded)
    boxes, valid = samples.boxes, samples.valid
    for number, stage in enumerate(head.box_branches(), start=1):
        output = stage(features, Proposals(boxes, valid))
        classification, regression, count, positives = 0.0, 0.0, 0, []
        moved, usable = boxes.clone(), valid.clone()
        for image, target in enumerate(targets):
            positives.append(0)
            for row in range(boxes.shape[1]):
                if not valid[image, row]:
                    continue
                box, offsets = boxes[image, row], output.offsets[image, row, 0]
                overlaps = box_iou(target.boxes, box[None])[:, 0]
                best = overlaps.argmax()
                positive = overlaps[best] >= stage.config.match_threshold
                label = target.labels[best] if positive else torch.tensor(NUM_CLASSES)
                classification += F.cross_entropy(output.logits[image, row], label)
                count += 1
                if positive:
                    positives[-1] += 1
                    expected = encode_plainly(box, target.boxes[best], stage.config.box_weights)
                    regression += (offsets - expected).abs().sum()
                moved[image, row] = decode_plainly(box, offsets, stage.config.box_weights, images.sizes[image]).detach()
                sides = moved[image, row, 2:] - moved[image, row, :2]
                usable[image, row] = (sides > 0).all()
        suffix = "" if number == 1 else f"_{number}"
        torch.testing.assert_close(found[f"loss_class{suffix}"], classification / count, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            found[f"loss_box{suffix}"], torch.as_tensor(regression / count), rtol=1e-4, atol=1e-6
        )
        assert metrics[f"box_positives{suffix}"].tolist() == positives
        boxes, valid = moved * usable[:, :, None], usable


def encode_plainly(box: Tensor, target: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Return the offsets from a box to the box of its object (1311.2524 Appendix C)."""
    width, height, target_width, target_height = (b[i + 2] - b[i] for b in (box, target) for i in (0, 1))
    dx = (target[0] + target_width / 2 - box[0] - width / 2) / width
    dy = (target[1] + target_height / 2 - box[1] - height / 2) / height
    offsets = torch.stack([dx, dy, (target_width / width).log(), (target_height / height).log()])
    return offsets * torch.tensor(weights)


@torch.no_grad()
def test_detections_equal_plain_loops(head):
    """Oracle: boxes of the last stage, the mean of all stages' probabilities, NMS within classes by torchvision."""
    features, images, _ = batch()
    proposals = head.rpn.propose(head.rpn(features, images), images, training=False)
    boxes, scores = proposals.boxes, torch.zeros(2, proposals.boxes.shape[1], NUM_CLASSES)
    for stage in head.box_branches():
        output = stage(features, proposals._replace(boxes=boxes))
        scores += output.logits.softmax(dim=2)[:, :, :NUM_CLASSES] / 3
        moved = boxes.clone()
        for image in range(2):
            for row in range(boxes.shape[1]):
                moved[image, row] = decode_plainly(
                    boxes[image, row], output.offsets[image, row, 0], stage.config.box_weights, images.sizes[image]
                )
        boxes = moved
    for image, detections in enumerate(head.predict(features, images)):
        rows, labels = ((scores[image] > 0.05) & proposals.valid[image, :, None]).nonzero(as_tuple=True)
        kept = batched_nms(boxes[image, rows], scores[image, rows, labels], labels, 0.5)[:100]
        assert len(detections) == len(kept) > 10
        torch.testing.assert_close(detections.boxes, boxes[image, rows[kept]], rtol=1e-4, atol=1e-3)
        assert torch.equal(detections.labels, labels[kept])


def test_later_stages_learn_from_better_boxes(head):
    """Law: with the paper's thresholds and refined boxes that are the objects themselves, every stage has positives."""
    features, images, targets = batch()
    outputs = head.loss(features, images, targets)
    assert {"loss_class", "loss_class_2", "loss_class_3", "loss_box_3", "box_positives_3"} <= outputs.keys()
    total_loss(outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.cascade.parameters())
    head.zero_grad()


def test_gradients_to_the_pyramid_are_divided_by_the_number_of_stages():
    """By hand (detectron2): the value is the same, the gradient a third."""
    value = torch.tensor([1.5, -2.0], requires_grad=True)
    scaled = scale_gradient(value, 1 / 3)
    assert torch.equal(scaled, value)
    (scaled * torch.tensor([3.0, 6.0])).sum().backward()
    torch.testing.assert_close(value.grad, torch.tensor([1.0, 2.0]))


def test_cascade_has_a_mask_branch_like_any_r_cnn():
    """Law: Cascade Mask R-CNN is the cascade with a mask branch; images without objects have finite losses."""
    torch.manual_seed(0)
    head = HEADS.build(CONFIG.replace(mask=MaskBranchConfig(convolutions=(8,))), PYRAMID, NUM_CLASSES)
    features, images, targets = batch()
    empty = Instances(targets[0].boxes[:0], targets[0].labels[:0], masks=torch.zeros(0, 128, 160, dtype=torch.bool))
    small = Instances(targets[0].boxes[:0], targets[0].labels[:0], masks=torch.zeros(0, 100, 130, dtype=torch.bool))
    outputs = head.loss(features, images, [empty, small])
    assert total_loss(outputs).isfinite() and outputs["loss_box_3"] == 0
    assert head.predict(features, images)[0].masks is not None


def test_class_rows_of_all_stages_are_declared():
    """Law: the class logits of every stage can move to a model of other classes."""
    names = class_rows_by_tensor(RCNNHead(PYRAMID, NUM_CLASSES, CONFIG))
    assert {"box.class_logits.weight", "cascade.0.class_logits.weight", "cascade.1.class_logits.bias"} <= names.keys()


def test_one_stage_is_faster_r_cnn():
    """Law: without further stages the head has the parameters of Faster R-CNN, under the same names."""
    assert not any("cascade" in name for name in RCNNHead(PYRAMID, NUM_CLASSES, RCNNConfig()).state_dict())
