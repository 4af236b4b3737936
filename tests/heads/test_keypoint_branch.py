"""Laws and hand-made cases of the keypoint branch; test_keypoint_rcnn_parity.py compares it with torchvision's."""

import math

import pytest
import torch
from torch import Tensor, nn

from vertebra.heads import (
    BoxBranchConfig,
    KeypointBranch,
    KeypointBranchConfig,
    RCNNConfig,
    RCNNHead,
    RPNConfig,
    required_keypoints,
)
from vertebra.ops import decode_keypoints, encode_keypoints, fixed_shapes, heatmap_scores, total_loss
from vertebra.structures import COCO_KEYPOINTS, Detections, Images, Instances

from ..helpers.regions import pad_to
from .test_keypoint_rcnn_parity import CHANNELS, CLASSES, INFO, NAMES, SIZE, scene

SMALL = KeypointBranchConfig(names=NAMES, convolutions=(CHANNELS,) * 2)


def build(**changes) -> KeypointBranch:
    """Return a small branch, with the same random weights for every config."""
    torch.manual_seed(0)
    return KeypointBranch(INFO, CLASSES, SMALL.replace(**changes))


def test_encoded_keypoint_is_decoded_to_its_cell():
    """Law: the maximum of a heatmap at the cell of a keypoint is within half a cell of it, by both rules.

    Cells at the border of a box are left out: their bicubic maximum is at the border itself.
    """
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[10.0, 20.0, 122.0, 76.0], [0.5, 3.25, 57.0, 200.0]])
    inner = 0.05 + 0.9 * torch.rand(2, 40, 2, generator=generator)
    points = boxes[:, None, :2] + inner * (boxes[:, 2:] - boxes[:, :2])[:, None]
    cells, found = encode_keypoints(torch.cat([points, torch.ones(2, 40, 1)], dim=2), boxes, 56)
    assert found.all()
    heatmaps = nn.functional.one_hot(cells, 56 * 56).float().unflatten(2, (56, 56))
    half = (boxes[:, 2:] - boxes[:, :2])[:, None] / 112
    for rule, slack in (("quarter", 1e-3), ("bicubic", 0.5)):  # a pixel of the resized map may be off its center
        decoded, _ = decode_keypoints(heatmaps, boxes, rule)
        assert ((decoded - points).abs() <= half + slack).all()


def test_quarter_rule_moves_toward_the_higher_neighbor():
    """By hand: cells of 2 x 1 pixels; the maximum in column 3 of row 2 has a higher neighbor to the right and above. In
    a corner nothing moves, and equal neighbors move nothing."""
    heatmaps = torch.zeros(1, 3, 8, 8)
    heatmaps[0, 0, 2, 3], heatmaps[0, 0, 2, 4], heatmaps[0, 0, 1, 3] = 5, 2, 1
    heatmaps[0, 1, 0, 7] = 5
    heatmaps[0, 2, 4, 4], heatmaps[0, 2, 4, 3], heatmaps[0, 2, 4, 5] = 5, 1, 1
    points, values = decode_keypoints(heatmaps, torch.tensor([[10.0, 20.0, 26.0, 28.0]]), "quarter")
    assert points[0].tolist() == [[10 + 2 * 3.75, 20 + 2.25], [10 + 2 * 7.5, 20.5], [10 + 2 * 4.5, 24.5]]
    assert values[0].tolist() == [5, 5, 5]


def test_score_is_the_softmax_of_the_heatmap():
    """By hand: one logit of ln 3 among three zeros is 3 / 6; the logit itself if the config says so."""
    heatmaps = torch.zeros(1, 1, 2, 2)
    heatmaps[0, 0, 1, 0] = math.log(3)
    assert heatmap_scores(heatmaps, heatmaps.amax((2, 3))).item() == pytest.approx(0.5)
    found = Detections(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([0]), torch.tensor([0.9]))
    for score, expected in (("probability", 0.5), ("logit", math.log(3))):
        branch = build(score=score, decoding="bicubic")
        keypoints = branch.attach(found, heatmaps, SIZE).keypoints
        assert keypoints[0, 0].tolist() == pytest.approx([0.5, 1.5, expected])


def reference_scores(heatmaps: Tensor, boxes: Tensor) -> Tensor:
    """Compute detectron2's scores: the resized heatmap's softmax, normalized over the cells of the heatmap."""
    rows = []
    for maps, box in zip(heatmaps, boxes, strict=True):
        width, height = (box[2:] - box[:2]).clamp(min=1).ceil().int().tolist()
        resized = nn.functional.interpolate(maps[None], (height, width), mode="bicubic", align_corners=False)[0]
        rows.append((resized.exp() / maps.exp().sum((1, 2), keepdim=True)).amax((1, 2)))
    return torch.stack(rows)


def test_scores_equal_detectron2s():
    """Oracle: detectron2's formula (structures/keypoints.py), computed in another way."""
    generator = torch.Generator().manual_seed(0)
    heatmaps = torch.randn(5, 3, 8, 8, generator=generator)
    boxes = torch.tensor([[0.0, 0.0, 30.5, 20.0], [5.0, 5.0, 5.5, 30.0], [1.0, 2.0, 9.0, 10.0]])[[0, 1, 2, 0, 1]]
    _, maxima = decode_keypoints(heatmaps, boxes, "bicubic")
    torch.testing.assert_close(heatmap_scores(heatmaps, maxima), reference_scores(heatmaps, boxes))


def test_fixed_normalizer_divides_by_all_possible_keypoints():
    """By hand: the same sum, divided by 2 images x 9 samples x 5 keypoints; detectron2's rule."""
    features, samples, positive, targets = scene()
    keypoints = torch.stack(
        [target.keypoints[rows] for target, rows in zip(targets, samples.target_indices, strict=True)]
    )
    _, found = encode_keypoints(keypoints, samples.boxes, 56)
    counted = (found & positive[..., None]).sum()
    labeled, fixed = (
        build(normalizer=rule).loss(features, samples, pad_to(SIZE, targets))["loss_keypoint"]
        for rule in ("labeled", "fixed")
    )
    assert 5 < counted < 60
    assert fixed.item() == pytest.approx(labeled.item() * counted.item() / (2 * 9 * 5), rel=1e-5)


def test_untrained_loss_is_that_of_a_guess():
    """By hand: heatmaps of zeros give a loss of ln(56 x 56)."""
    features, samples, _, targets = scene()
    branch = build()
    nn.init.zeros_(branch.heatmaps.weight)
    assert branch.loss(features, samples, pad_to(SIZE, targets))["loss_keypoint"].item() == pytest.approx(
        math.log(56 * 56)
    )


def test_loss_without_keypoints_to_learn_is_zero():
    """docs/faults.md row 25. Law: without objects, positives or labeled keypoints loss and gradient are zero."""
    features, samples, _, targets = scene()
    nothing = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), keypoints=torch.zeros(0, len(NAMES), 3))
    unlabeled = [target.replace(keypoints=torch.zeros_like(target.keypoints)) for target in targets]
    background = samples._replace(labels=torch.full_like(samples.labels, CLASSES))
    no_object = background._replace(target_indices=torch.zeros_like(samples.target_indices))
    for regions, objects in ((background, targets), (no_object, [nothing, nothing]), (samples, unlabeled)):
        branch = build()
        loss = branch.loss(features, regions, pad_to(SIZE, objects))["loss_keypoint"]
        loss.backward()
        assert loss == 0 and all(not parameter.grad.any() for parameter in branch.parameters())


def test_empty_padding_boxes_do_not_matter():
    """Law: samples that are padding, with boxes of no area, change neither the loss nor its gradient."""
    features, samples, positive, targets = scene()
    padded = samples._replace(
        boxes=torch.where(positive[..., None], samples.boxes, 0), valid=positive, labels=samples.labels
    )
    losses = []
    for regions in (samples, padded):
        branch = build()
        with fixed_shapes():
            loss = branch.loss(features, regions, pad_to(SIZE, targets))["loss_keypoint"]
        loss.backward()
        losses.append((loss, branch.heatmaps.weight.grad))
    for first, second in zip(*losses, strict=True):
        torch.testing.assert_close(first, second)


def test_targets_without_keypoints_are_refused():
    """docs/faults.md row 151. By hand: ValueError with what is needed and what came."""
    features, samples, _, targets = scene()
    without = [target.replace(keypoints=None) for target in targets]
    others = [target.replace(keypoints=torch.zeros(len(target), 2, 3)) for target in targets]
    for wrong, given in ((without, "none"), (others, "2")):
        with pytest.raises(ValueError, match=f"needs targets with 5 keypoints per object; these have {given}"):
            build().loss(features, samples, pad_to(SIZE, wrong))


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        (torch.zeros(2, 17, 3), r"shape \(1, number of keypoints, 3\) for 1 boxes, got \(2, 17, 3\)"),
        (torch.zeros(1, 17, 2), r"got \(1, 17, 2\)"),
        (torch.tensor([[[1.0, 2.0, 0.5]]]), r"keypoints\[0, 0\] is \(1, 2, 0.5\): .*visibility of 0, 1 or 2"),
        (
            torch.tensor([[[1.0, 2.0, 2.0], [math.nan, 2.0, 1.0]]]),
            r"keypoints\[0, 1\] is \(nan, 2, 1\): it must be fin",
        ),
    ],
)
def test_invalid_keypoints_are_refused(keypoints, message):
    """docs/faults.md row 152. By hand: ValueError through the Python API."""
    with pytest.raises(ValueError, match=message):
        Instances(torch.tensor([[0.0, 0.0, 5.0, 5.0]]), torch.tensor([0]), keypoints=keypoints)


def test_detections_select_and_rescale_keypoints():
    """By hand: rows are selected, x and y rescaled, and scores kept; a keypoint outside the image stays there."""
    keypoints = torch.tensor([[[10.0, 20.0, 0.5]], [[90.0, -4.0, 0.25]]])
    found = Detections(torch.rand(2, 4).cumsum(1), torch.tensor([0, 0]), torch.tensor([0.9, 0.8]), keypoints=keypoints)
    assert found[1].keypoints.tolist() == [[[90.0, -4.0, 0.25]]] and found.to("meta").keypoints.is_meta
    assert found.to_original((40, 80), (80, 240)).keypoints.tolist() == [[[30.0, 40.0, 0.5]], [[270.0, -8.0, 0.25]]]


def test_head_config_states_its_keypoints():
    """By hand: COCO's keypoints by default, the given ones, or None without a branch; a repeated name is refused."""
    assert required_keypoints(RCNNConfig(keypoint=KeypointBranchConfig())) == COCO_KEYPOINTS
    assert required_keypoints(RCNNConfig()) is None
    with pytest.raises(ValueError, match="keypoints need unique names"):
        KeypointBranchConfig(names=("nose", "nose"))


def test_keypoint_loss_falls_in_training():
    """Learning: the keypoint loss of one scene falls by a quarter in twenty steps."""
    features, _, _, targets = scene()
    torch.manual_seed(0)
    box = BoxBranchConfig(fc=(32,), samples=32, max_detections=10)
    head = RCNNHead(INFO, CLASSES, RCNNConfig(rpn=RPNConfig(post_nms=(20, 20)), box=box, keypoint=SMALL))
    images = Images.from_list([torch.zeros(3, *SIZE, dtype=torch.uint8)] * 2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        torch.manual_seed(0)
        terms = head.loss(features, images, targets)
        optimizer.zero_grad()
        total_loss(terms).backward()
        optimizer.step()
        losses.append(terms["loss_keypoint"].item())
    assert losses[-1] < 0.75 * losses[0]
    predictions = head.predict(features, images)
    assert all(found.keypoints.shape == (len(found), len(NAMES), 3) for found in predictions)
