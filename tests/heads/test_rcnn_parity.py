"""Faster R-CNN against torchvision's with the same weights and conventions, stage by stage.

Each stage gets torchvision's output of the stage before, so that errors do not add up; then the whole model is
compared. A comparison that passes whatever the convention proves nothing, so negative controls change one convention at
a time and check that the comparison fails.
"""

import pytest
import torch

from vertebra.heads import Proposals
from vertebra.models import from_torchvision_detector
from vertebra.ops import pad_targets, split_losses, total_loss
from vertebra.structures import Instances

from ..helpers.reference_detector import (
    CONVENTIONS,
    NUM_CLASSES,
    PROPOSALS,
    random_images,
    replace_in_branch,
    torchvision_detector,
    torchvision_features,
    vertebra_detector,
)

SIZES = [[(128, 160)], [(160, 224), (150, 200)]]  # 160 x 224: the coarsest levels have odd sizes


@pytest.fixture(scope="module")
def torchvision_model():
    return torchvision_detector()


def targets_for(proposals: list[torch.Tensor], per_image: int = 5) -> tuple[list[dict], list[Instances]]:
    """Return objects as torchvision takes them (labels from 1) and as Vertebra does.

    They are slightly moved proposals, so that there are positives with box offsets to learn.
    """
    theirs, ours = [], []
    labels = torch.arange(per_image) % NUM_CLASSES
    for boxes in proposals:
        sides = boxes[:, 2:] - boxes[:, :2]
        large = boxes[sides.amin(dim=1) > 12]
        chosen = large[:: len(large) // per_image][:per_image]
        moved = chosen + chosen.new_tensor([2.0, -1.0, 3.0, 2.0])
        theirs.append({"boxes": moved, "labels": labels + 1})
        ours.append(Instances(moved, labels))
    return theirs, ours


def dense_pair(torchvision_model, config, sizes):
    """Return the anchors, logits and offsets of both RPNs on torchvision's features."""
    pixels, images = random_images(sizes)
    features, image_list = torchvision_features(torchvision_model, pixels)
    their_features = list(features.values())
    objectness, offsets = torchvision_model.rpn.head(their_features)
    anchors = torchvision_model.rpn.anchor_generator(image_list, their_features)
    ours = vertebra_detector(torchvision_model, config).head.rpn(features, images)
    return ours, anchors[0], objectness, offsets


@pytest.mark.parametrize("sizes", SIZES)
def test_features_equal_torchvisions(torchvision_model, sizes):
    """Oracle: normalized, padded pixels through torchvision's ResNet-18 and FPN: bit-equal except for the order of
    two roundings."""
    pixels, images = random_images(sizes)
    theirs, _ = torchvision_features(torchvision_model, pixels)
    with torch.no_grad():
        ours = vertebra_detector(torchvision_model).features(images)
    for level, expected in theirs.items():
        torch.testing.assert_close(ours[level], expected, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
def test_rpn_outputs_equal_torchvisions(torchvision_model, sizes):
    """Oracle: torchvision's RPN: anchors, logits and offsets, bit-equal."""
    ours, anchors, objectness, offsets = dense_pair(torchvision_model, CONVENTIONS, sizes)
    assert torch.equal(torch.cat(ours.anchors), anchors)
    for index, (logits, deltas) in enumerate(zip(objectness, offsets, strict=True)):
        batch = len(logits)
        torch.testing.assert_close(ours.logits[index], logits.permute(0, 2, 3, 1).reshape(batch, -1), atol=0, rtol=0)
        grouped = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(batch, -1, 4)
        torch.testing.assert_close(ours.offsets[index], grouped, atol=0, rtol=0)


def proposals_of(torchvision_model, sizes) -> tuple[list[torch.Tensor], dict, object]:
    pixels, images = random_images(sizes)
    features, image_list = torchvision_features(torchvision_model, pixels)
    boxes, _ = torchvision_model.rpn(image_list, features)
    return boxes, features, images


def equal_box_sets(first: torch.Tensor, second: torch.Tensor, tolerance: float = 1e-3) -> bool:
    """Return whether two sets have the same boxes, in any order."""
    if len(first) != len(second):
        return False
    distance = torch.cdist(first, second, p=float("inf"))
    return bool((distance.amin(dim=1) < tolerance).all() and (distance.amin(dim=0) < tolerance).all())


@pytest.mark.parametrize("sizes", SIZES)
def test_proposals_equal_torchvisions(torchvision_model, sizes):
    """Oracle: torchvision's proposals after NMS: the same set of boxes for each image."""
    expected, features, images = proposals_of(torchvision_model, sizes)
    rpn = vertebra_detector(torchvision_model).head.rpn
    proposals = rpn.propose(rpn(features, images), images, training=False)
    for boxes, valid, theirs in zip(*proposals, expected, strict=True):
        assert len(theirs) == PROPOSALS
        assert equal_box_sets(boxes[valid], theirs)


def padded(boxes: list[torch.Tensor]) -> Proposals:
    """Pad torchvision's proposals to a fixed number per image."""
    count = max(map(len, boxes))
    valid = torch.stack([torch.arange(count) < len(image) for image in boxes])
    rows = [torch.nn.functional.pad(image, (0, 0, 0, count - len(image))) for image in boxes]
    return Proposals(torch.stack(rows), valid)


def box_outputs(torchvision_model, config, sizes):
    """Return the logits and offsets of both box branches (background last, without its offsets) on torchvision's
    proposals."""
    proposals, features, images = proposals_of(torchvision_model, sizes)
    pooled_from = {str(index): features[level] for index, level in enumerate(("p2", "p3", "p4", "p5"))}
    shapes = [tuple(images.pixels.shape[-2:])] * len(images)
    torchvision_model.roi_heads.box_roi_pool.scales = None
    pooled = torchvision_model.roi_heads.box_roi_pool(pooled_from, proposals, shapes)
    logits, offsets = torchvision_model.roi_heads.box_predictor(torchvision_model.roi_heads.box_head(pooled))
    ours = vertebra_detector(torchvision_model, config).head.box(features, padded(proposals))
    valid = padded(proposals).valid
    return (ours.logits[valid], ours.offsets[valid]), (logits.roll(-1, 1), offsets.unflatten(1, (-1, 4))[:, 1:])


@pytest.mark.parametrize("sizes", SIZES)
def test_box_branch_outputs_equal_torchvisions(torchvision_model, sizes):
    """Oracle: torchvision's RoIAlign, two layers, class logits and offsets, on its proposals."""
    (our_logits, our_offsets), (logits, offsets) = box_outputs(torchvision_model, CONVENTIONS, sizes)
    torch.testing.assert_close(our_logits, logits, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(our_offsets, offsets, atol=1e-4, rtol=1e-5)


def losses_of(torchvision_model, config, sizes) -> tuple[dict, dict, object]:
    """Return the losses of both models, and Vertebra's model; all anchors and proposals are sampled, so nothing is
    random."""
    pixels, images = random_images(sizes)
    their_targets, our_targets = targets_for(proposals_of(torchvision_model, sizes)[0])
    reference = vertebra_detector(
        torchvision_model, replace_in_branch(replace_in_branch(config, "rpn", samples=10**6), "box", samples=10**6)
    )
    torchvision_model.rpn.fg_bg_sampler.batch_size_per_image = (
        torchvision_model.roi_heads.fg_bg_sampler.batch_size_per_image
    ) = 10**6
    torchvision_model.train()
    features, image_list = torchvision_features(torchvision_model, pixels)
    proposals, rpn_losses = torchvision_model.rpn(image_list, features, their_targets)
    pooled_from = {str(index): features[level] for index, level in enumerate(("p2", "p3", "p4", "p5"))}
    _, box_losses = torchvision_model.roi_heads(pooled_from, proposals, image_list.image_sizes, their_targets)
    torchvision_model.eval()
    targets = pad_targets(our_targets, images)
    samples = reference.head.box.sample(padded(proposals), targets)
    ours, _ = split_losses(
        reference.head.rpn.loss(reference.head.rpn(features, images), targets)
        | reference.head.box.loss(reference.head.box(features, samples.proposals), samples)
    )
    theirs = {
        "loss_rpn_objectness": rpn_losses["loss_objectness"],
        "loss_rpn_box": rpn_losses["loss_rpn_box_reg"],
        "loss_class": box_losses["loss_classifier"],
        "loss_box": box_losses["loss_box_reg"],
    }
    return ours, theirs, reference


@pytest.mark.parametrize("sizes", SIZES)
def test_losses_and_gradients_equal_torchvisions(torchvision_model, sizes):
    """Oracle: torchvision's four losses, to 1e-5, and the gradient of every head parameter, to 1e-4 of its largest
    value."""
    ours, theirs, reference = losses_of(torchvision_model, CONVENTIONS, sizes)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=1e-6, msg=name)
    torchvision_model.zero_grad()
    sum(theirs.values()).backward()
    total_loss(ours).backward()
    named = {name: value.grad for name, value in torchvision_model.named_parameters() if value.grad is not None}
    expected = from_torchvision_detector(named)
    for name, value in reference.head.named_parameters(prefix="head"):
        scale = expected[name].abs().max()
        assert scale > 0
        torch.testing.assert_close(value.grad / scale, expected[name] / scale, atol=1e-4, rtol=0, msg=name)


def matched_fraction(ours, theirs) -> float:
    """Return the fraction of torchvision's detections that Vertebra has with the same class, score and box."""
    matched = 0
    for box, label, score in zip(theirs["boxes"], theirs["labels"], theirs["scores"], strict=True):
        near = (ours.boxes - box).abs().amax(dim=1) < 1e-2
        matched += bool((near & (ours.labels == label - 1) & ((ours.scores - score).abs() < 1e-4)).any())
    return matched / max(len(theirs["boxes"]), 1)


def end_to_end(torchvision_model, config, sizes, seed: int = 0) -> list[tuple[float, int, int]]:
    """Return, for each image, the fraction of torchvision's detections that Vertebra has too, and the numbers of
    both."""
    pixels, images = random_images(sizes, seed)
    with torch.no_grad():
        theirs = torchvision_model(pixels)
        ours = vertebra_detector(
            torchvision_model, replace_in_branch(config, "box", score_threshold=0.0, max_candidates=10**5)
        ).predict(images)
    return [(matched_fraction(*pair), len(pair[0]), len(pair[1]["boxes"])) for pair in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("sizes", SIZES)
def test_detections_equal_torchvisions_from_pixels(torchvision_model, sizes, seed):
    """Oracle: torchvision's final 100 detections from pixels: boxes (1e-2 px), classes and scores (1e-4).

    Two nearly equal proposals may swap at the last place or at an NMS threshold, so one detection in fifty may differ.
    """
    for fraction, ours, theirs in end_to_end(torchvision_model, CONVENTIONS, sizes, seed):
        assert ours == theirs == 100
        assert fraction >= 0.98


def test_negative_control_rounded_anchors(torchvision_model):
    """Control: with unrounded anchors the comparison of anchors fails."""
    ours, anchors, *_ = dense_pair(
        torchvision_model, replace_in_branch(CONVENTIONS, "rpn", round_anchors=False), SIZES[0]
    )
    assert (torch.cat(ours.anchors) - anchors).abs().max() > 0.1


def test_negative_control_anchor_stride(torchvision_model):
    """Control: with exact strides the comparison of anchors fails where a level's size is odd, by tens of pixels on
    the coarsest."""
    ours, anchors, *_ = dense_pair(
        torchvision_model, replace_in_branch(CONVENTIONS, "rpn", anchor_stride="exact"), SIZES[1]
    )
    assert (torch.cat(ours.anchors) - anchors).abs().max() > 10


def test_negative_control_proposal_count(torchvision_model):
    """Control: with fewer candidates per level the comparison of proposals fails."""
    expected, features, images = proposals_of(torchvision_model, SIZES[0])
    rpn = vertebra_detector(torchvision_model, replace_in_branch(CONVENTIONS, "rpn", pre_nms=(2000, 100))).head.rpn
    proposals = rpn.propose(rpn(features, images), images, training=False)
    assert not equal_box_sets(proposals.boxes[0][proposals.valid[0]], expected[0])


@pytest.mark.parametrize(
    "pool", [{"aligned": True}, {"sampling_ratio": 0}, {"canonical_size": 112.0}], ids=lambda pool: next(iter(pool))
)
def test_negative_control_pooling(torchvision_model, pool):
    """Control: with one pooling convention changed the comparison of the box branch fails."""
    config = replace_in_branch(CONVENTIONS, "box", pool=CONVENTIONS.box.pool.replace(**pool))
    (our_logits, _), (logits, _) = box_outputs(torchvision_model, config, SIZES[0])
    assert (our_logits - logits).abs().max() > 1e-2


def test_negative_control_background_position(torchvision_model):
    """Control: with the background last the weights do not fit."""
    with pytest.raises(RuntimeError, match="box_offsets"):
        vertebra_detector(torchvision_model, replace_in_branch(CONVENTIONS, "box", background="last"))


@pytest.mark.parametrize(
    ("branch", "values", "loss"),
    [
        ("rpn", {"beta": 0.0}, "loss_rpn_box"),
        ("rpn", {"normalizer": "fixed"}, "loss_rpn_objectness"),
        ("rpn", {"match_thresholds": (0.3, 0.6)}, "loss_rpn_box"),
        ("box", {"beta": 0.0}, "loss_box"),
        ("box", {"box_weights": (1.0, 1.0, 1.0, 1.0)}, "loss_box"),
        ("box", {"match_threshold": 0.6}, "loss_class"),
    ],
    ids=str,
)
def test_negative_control_losses(torchvision_model, branch, values, loss):
    """Control: with one loss convention changed the losses differ by more than ten times the tolerance."""
    ours, theirs, _ = losses_of(torchvision_model, replace_in_branch(CONVENTIONS, branch, **values), SIZES[0])
    assert abs(ours[loss].item() / theirs[loss].item() - 1) > 1e-4


@pytest.mark.parametrize("values", [{"nms_threshold": 0.4}, {"min_size": 20.0}], ids=str)
def test_negative_control_detections(torchvision_model, values):
    """Control: with one rule of the last stage changed the comparison of detections fails."""
    assert end_to_end(torchvision_model, replace_in_branch(CONVENTIONS, "box", **values), SIZES[0])[0][0] < 0.98
