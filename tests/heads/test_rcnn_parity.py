"""Faster R-CNN against torchvision's with the same weights and conventions, stage by stage.

Each stage is fed the peer's output of the stage before, so that errors do not add up; then end to end. A gate that
passes whatever the convention proves nothing, so every convention is also flipped alone and its gate must fail.
"""

import pytest
import torch

from vertebra.heads import Proposals
from vertebra.models import from_torchvision_detector
from vertebra.ops import split_losses, total_loss
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
def peer():
    return torchvision_detector()


def targets_for(proposals: list[torch.Tensor], per_image: int = 5) -> tuple[list[dict], list[Instances]]:
    """Return objects as torchvision wants them (labels from 1) and as ours.

    They are proposals moved a little, so that there are positives whose boxes have something to learn.
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


def dense_pair(peer, config, sizes):
    """Return both RPNs' anchors, logits and offsets on the peer's features."""
    pixels, images = random_images(sizes)
    features, image_list = torchvision_features(peer, pixels)
    their_features = list(features.values())
    objectness, offsets = peer.rpn.head(their_features)
    anchors = peer.rpn.anchor_generator(image_list, their_features)
    ours = vertebra_detector(peer, config).head.rpn(features, images)
    return ours, anchors[0], objectness, offsets


@pytest.mark.parametrize("sizes", SIZES)
def test_features_equal_torchvisions(peer, sizes):
    """Normalized, padded pixels through ResNet-18 and FPN: bit-equal but for the order of two roundings."""
    pixels, images = random_images(sizes)
    theirs, _ = torchvision_features(peer, pixels)
    with torch.no_grad():
        ours = vertebra_detector(peer).features(images)
    for level, expected in theirs.items():
        torch.testing.assert_close(ours[level], expected, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
def test_rpn_outputs_equal_torchvisions(peer, sizes):
    """The RPN's dense output: anchors, logits and offsets bit-equal."""
    ours, anchors, objectness, offsets = dense_pair(peer, CONVENTIONS, sizes)
    assert torch.equal(torch.cat(ours.anchors), anchors)
    for index, (logits, deltas) in enumerate(zip(objectness, offsets, strict=True)):
        batch = len(logits)
        torch.testing.assert_close(ours.logits[index], logits.permute(0, 2, 3, 1).reshape(batch, -1), atol=0, rtol=0)
        grouped = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(batch, -1, 4)
        torch.testing.assert_close(ours.offsets[index], grouped, atol=0, rtol=0)


def proposals_of(peer, sizes) -> tuple[list[torch.Tensor], dict, object]:
    pixels, images = random_images(sizes)
    features, image_list = torchvision_features(peer, pixels)
    boxes, _ = peer.rpn(image_list, features)
    return boxes, features, images


def same_boxes(first: torch.Tensor, second: torch.Tensor, tolerance: float = 1e-3) -> bool:
    """Return whether two sets hold the same boxes, whatever the order of near ties."""
    if len(first) != len(second):
        return False
    distance = torch.cdist(first, second, p=float("inf"))
    return bool((distance.amin(dim=1) < tolerance).all() and (distance.amin(dim=0) < tolerance).all())


@pytest.mark.parametrize("sizes", SIZES)
def test_proposals_equal_torchvisions(peer, sizes):
    """The same set of boxes per image after suppression."""
    expected, features, images = proposals_of(peer, sizes)
    rpn = vertebra_detector(peer).head.rpn
    proposals = rpn.propose(rpn(features, images), images, training=False)
    for boxes, valid, theirs in zip(*proposals, expected, strict=True):
        assert len(theirs) == PROPOSALS
        assert same_boxes(boxes[valid], theirs)


def padded(boxes: list[torch.Tensor]) -> Proposals:
    """Pad the peer's proposals to a fixed number per image."""
    count = max(map(len, boxes))
    valid = torch.stack([torch.arange(count) < len(image) for image in boxes])
    rows = [torch.nn.functional.pad(image, (0, 0, 0, count - len(image))) for image in boxes]
    return Proposals(torch.stack(rows), valid)


def box_outputs(peer, config, sizes):
    """Return both box branches' logits and offsets (background last, its offsets dropped) on the peer's proposals."""
    proposals, features, images = proposals_of(peer, sizes)
    pooled_from = {str(index): features[level] for index, level in enumerate(("p2", "p3", "p4", "p5"))}
    shapes = [tuple(images.pixels.shape[-2:])] * len(images)
    peer.roi_heads.box_roi_pool.scales = None
    pooled = peer.roi_heads.box_roi_pool(pooled_from, proposals, shapes)
    logits, offsets = peer.roi_heads.box_predictor(peer.roi_heads.box_head(pooled))
    ours = vertebra_detector(peer, config).head.box(features, padded(proposals).boxes)
    valid = padded(proposals).valid
    return (ours.logits[valid], ours.offsets[valid]), (logits.roll(-1, 1), offsets.unflatten(1, (-1, 4))[:, 1:])


@pytest.mark.parametrize("sizes", SIZES)
def test_box_branch_outputs_equal_torchvisions(peer, sizes):
    """RoIAlign, two layers, class logits and offsets on the peer's proposals."""
    (our_logits, our_offsets), (logits, offsets) = box_outputs(peer, CONVENTIONS, sizes)
    torch.testing.assert_close(our_logits, logits, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(our_offsets, offsets, atol=1e-4, rtol=1e-5)


def losses_of(peer, config, sizes) -> tuple[dict, dict, object]:
    """Return both sides' losses and our model; every anchor and proposal is drawn, so that no random draw decides."""
    pixels, images = random_images(sizes)
    their_targets, our_targets = targets_for(proposals_of(peer, sizes)[0])
    twin = vertebra_detector(
        peer, replace_in_branch(replace_in_branch(config, "rpn", samples=10**6), "box", samples=10**6)
    )
    peer.rpn.fg_bg_sampler.batch_size_per_image = peer.roi_heads.fg_bg_sampler.batch_size_per_image = 10**6
    peer.train()
    features, image_list = torchvision_features(peer, pixels)
    proposals, rpn_losses = peer.rpn(image_list, features, their_targets)
    pooled_from = {str(index): features[level] for index, level in enumerate(("p2", "p3", "p4", "p5"))}
    _, box_losses = peer.roi_heads(pooled_from, proposals, image_list.image_sizes, their_targets)
    peer.eval()
    samples = twin.head.box.sample(padded(proposals), our_targets)
    ours, _ = split_losses(
        twin.head.rpn.loss(twin.head.rpn(features, images), our_targets)
        | twin.head.box.loss(twin.head.box(features, samples.boxes), samples)
    )
    theirs = {
        "loss_rpn_objectness": rpn_losses["loss_objectness"],
        "loss_rpn_box": rpn_losses["loss_rpn_box_reg"],
        "loss_class": box_losses["loss_classifier"],
        "loss_box": box_losses["loss_box_reg"],
    }
    return ours, theirs, twin


@pytest.mark.parametrize("sizes", SIZES)
def test_losses_and_gradients_equal_torchvisions(peer, sizes):
    """Four losses to 1e-5 and the gradient of every head parameter to 1e-4 of its largest, relative."""
    ours, theirs, twin = losses_of(peer, CONVENTIONS, sizes)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-5, atol=1e-6, msg=name)
    peer.zero_grad()
    sum(theirs.values()).backward()
    total_loss(ours).backward()
    named = {name: value.grad for name, value in peer.named_parameters() if value.grad is not None}
    expected = from_torchvision_detector(named)
    for name, value in twin.head.named_parameters(prefix="head"):
        scale = expected[name].abs().max()
        assert scale > 0
        torch.testing.assert_close(value.grad / scale, expected[name] / scale, atol=1e-4, rtol=0, msg=name)


def matched_fraction(ours, theirs) -> float:
    """Return the fraction of the peer's detections that have one of ours of the same class, score and box."""
    matched = 0
    for box, label, score in zip(theirs["boxes"], theirs["labels"], theirs["scores"], strict=True):
        near = (ours.boxes - box).abs().amax(dim=1) < 1e-2
        matched += bool((near & (ours.labels == label - 1) & ((ours.scores - score).abs() < 1e-4)).any())
    return matched / max(len(theirs["boxes"]), 1)


def end_to_end(peer, config, sizes, seed: int = 0) -> list[tuple[float, int, int]]:
    """Return per image the fraction of the peer's detections that ours has too, and how many both have."""
    pixels, images = random_images(sizes, seed)
    with torch.no_grad():
        theirs = peer(pixels)
        ours = vertebra_detector(
            peer, replace_in_branch(config, "box", score_threshold=0.0, max_candidates=10**5)
        ).predict(images)
    return [(matched_fraction(*pair), len(pair[0]), len(pair[1]["boxes"])) for pair in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("sizes", SIZES)
def test_detections_equal_torchvisions_from_pixels(peer, sizes, seed):
    """Pixels to the final 100 detections: same boxes (1e-2 px), classes and scores (1e-4).

    Two near-equal proposals may swap at the last place or at a suppression threshold; one in fifty may differ so.
    """
    for fraction, ours, theirs in end_to_end(peer, CONVENTIONS, sizes, seed):
        assert ours == theirs == 100
        assert fraction >= 0.98


def test_negative_control_rounded_anchors(peer):
    """Unrounded anchors must fail the anchor gate."""
    ours, anchors, *_ = dense_pair(peer, replace_in_branch(CONVENTIONS, "rpn", round_anchors=False), SIZES[0])
    assert (torch.cat(ours.anchors) - anchors).abs().max() > 0.1


def test_negative_control_anchor_stride(peer):
    """Exact strides must fail the anchor gate where a level's size is odd: by tens of pixels on the coarsest."""
    ours, anchors, *_ = dense_pair(peer, replace_in_branch(CONVENTIONS, "rpn", anchor_stride="exact"), SIZES[1])
    assert (torch.cat(ours.anchors) - anchors).abs().max() > 10


def test_negative_control_proposal_count(peer):
    """Fewer candidates per level must fail the proposal gate."""
    expected, features, images = proposals_of(peer, SIZES[0])
    rpn = vertebra_detector(peer, replace_in_branch(CONVENTIONS, "rpn", pre_nms=(2000, 100))).head.rpn
    proposals = rpn.propose(rpn(features, images), images, training=False)
    assert not same_boxes(proposals.boxes[0][proposals.valid[0]], expected[0])


@pytest.mark.parametrize(
    "pool", [{"aligned": True}, {"sampling_ratio": 0}, {"canonical_size": 112.0}], ids=lambda pool: next(iter(pool))
)
def test_negative_control_pooling(peer, pool):
    """Each pooling convention flipped alone must fail the box branch's gate."""
    config = replace_in_branch(CONVENTIONS, "box", pool=CONVENTIONS.box.pool.replace(**pool))
    (our_logits, _), (logits, _) = box_outputs(peer, config, SIZES[0])
    assert (our_logits - logits).abs().max() > 1e-2


def test_negative_control_background_position(peer):
    """Reading the background from the wrong end must fail: the weights do not even have that shape."""
    with pytest.raises(RuntimeError, match="box_offsets"):
        vertebra_detector(peer, replace_in_branch(CONVENTIONS, "box", background="last"))


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
def test_negative_control_losses(peer, branch, values, loss):
    """Each loss convention flipped alone must fail the loss gate, by more than ten times its tolerance."""
    ours, theirs, _ = losses_of(peer, replace_in_branch(CONVENTIONS, branch, **values), SIZES[0])
    assert abs(ours[loss].item() / theirs[loss].item() - 1) > 1e-4


@pytest.mark.parametrize("values", [{"nms_threshold": 0.4}, {"min_size": 20.0}], ids=str)
def test_negative_control_detections(peer, values):
    """Each rule of the last stage flipped alone must fail the end-to-end gate."""
    assert end_to_end(peer, replace_in_branch(CONVENTIONS, "box", **values), SIZES[0])[0][0] < 0.98
