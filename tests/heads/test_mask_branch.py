"""The mask branch against torchvision's with the same weights, and laws of its targets and losses."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import maskrcnn_inference, maskrcnn_loss, paste_masks_in_image
from torchvision.ops import MultiScaleRoIAlign

from vertebra.data import CocoConfig, PolygonMask, ResizeConfig, build_dataset, build_transform, pad_polygon_masks
from vertebra.heads import BoxBranchConfig, MaskBranch, MaskBranchConfig, RCNNConfig, RCNNHead, RegionSamples, RPNConfig
from vertebra.ops import RoIAlignConfig, fixed_shapes, paste_masks, total_loss
from vertebra.structures import FeatureInfo, Images, Instances

from ..helpers.regions import detections_at, pad_to

CLASSES, CHANNELS = 5, 16
INFO = {f"p{level}": FeatureInfo(CHANNELS, 2**level) for level in (2, 3, 4, 5)}
SIZE = (160, 192)
TORCHVISION = MaskBranchConfig(
    pool=RoIAlignConfig(size=14, sampling_ratio=2, aligned=False, level_epsilon="outside"),
    convolutions=(CHANNELS,) * 4,
    truth="soft",
    paste="padded",
)


class TorchvisionBranch(nn.Module):
    """torchvision's mask branch of the same size; its class 0 is the background."""

    def __init__(self):
        super().__init__()
        self.pool = MultiScaleRoIAlign(featmap_names=list(INFO), output_size=14, sampling_ratio=2)
        self.head = MaskRCNNHeads(CHANNELS, (CHANNELS,) * 4, 1)
        self.predictor = MaskRCNNPredictor(CHANNELS, CHANNELS, CLASSES + 1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.25)

    def forward(self, features, boxes):
        return self.predictor(self.head(self.pool(features, boxes, [SIZE] * len(boxes))))


@pytest.fixture
def torchvision_branch():
    torch.manual_seed(0)
    return TorchvisionBranch()


def same_branch(torchvision_branch, **changes):
    """Build Vertebra's branch with the weights of torchvision's, without the background's mask."""
    ours = MaskBranch(INFO, CLASSES, TORCHVISION.replace(**changes))
    names = {}
    for index in range(4):
        for tensor in ("weight", "bias"):
            names[f"convolutions.{index}.0.{tensor}"] = torchvision_branch.head[index][0].get_parameter(tensor)
    for tensor in ("weight", "bias"):
        names[f"deconvolution.{tensor}"] = torchvision_branch.predictor.conv5_mask.get_parameter(tensor)
        names[f"logits.{tensor}"] = torchvision_branch.predictor.mask_fcn_logits.get_parameter(tensor)[1:]
    ours.load_state_dict({name: value.detach().clone() for name, value in names.items()})
    return ours


def scene():
    """Draw two images with features, regions on every level, and three and two objects with masks."""
    generator = torch.Generator().manual_seed(1)
    features = {
        name: torch.randn(2, CHANNELS, SIZE[0] // info.stride, SIZE[1] // info.stride, generator=generator)
        for name, info in INFO.items()
    }
    corners = torch.rand(2, 9, 2, generator=generator) * torch.tensor([120.0, 90.0])
    boxes = torch.cat([corners, corners + 6 + torch.rand(2, 9, 2, generator=generator) * 90], dim=2)
    targets = []
    for count in (3, 2):
        rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
        centers = torch.rand(count, 2, generator=generator) * 90 + 30
        masks = torch.stack([(rows - y) ** 2 + (columns - x) ** 2 < (20 + y / 4) ** 2 for x, y in centers])
        object_boxes = torch.tensor([[10.0, 10.0, 90.0, 90.0]]).expand(count, 4)
        targets.append(Instances(object_boxes, torch.randint(0, CLASSES, (count,), generator=generator), masks))
    indices = torch.stack([torch.randint(0, len(target), (9,), generator=generator) for target in targets])
    labels = torch.stack([target.labels[rows] for target, rows in zip(targets, indices, strict=True)])
    return features, boxes, labels, indices, targets


def samples_of(boxes, labels, indices, positive):
    """Return regions as the box branch samples them; those that are not positive are background."""
    labels = torch.where(positive, labels, CLASSES)
    return RegionSamples(boxes, torch.ones_like(positive), labels, boxes, indices)


def test_masks_equal_torchvisions(torchvision_branch):
    """Oracle: torchvision's probabilities for the same regions and labels."""
    features, boxes, labels, *_ = scene()
    with torch.no_grad():
        expected = maskrcnn_inference(torchvision_branch(features, list(boxes)), list(labels + 1))
        probabilities = same_branch(torchvision_branch).predict(features, detections_at(boxes, labels))
    for ours, theirs in zip(probabilities, expected, strict=True):
        torch.testing.assert_close(ours, theirs[:, 0], rtol=1e-4, atol=1e-5)
        assert ours.std() > 0.1


def test_loss_and_gradient_equal_torchvisions(torchvision_branch):
    """Oracle: torchvision's loss over the same positives, and its gradient of every weight; 0 for its background's."""
    features, boxes, labels, indices, targets = scene()
    positive = torch.arange(9).expand(2, 9) < torch.tensor([[6], [4]])
    ours = same_branch(torchvision_branch)
    loss = ours.loss(features, samples_of(boxes, labels, indices, positive), pad_to(SIZE, targets))["loss_mask"]
    positive_boxes = [rows[mask] for rows, mask in zip(boxes, positive, strict=True)]
    expected = maskrcnn_loss(
        torchvision_branch(features, positive_boxes),
        positive_boxes,
        [target.masks.float() for target in targets],
        [target.labels + 1 for target in targets],
        [rows[mask] for rows, mask in zip(indices, positive, strict=True)],
    )
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.logits.weight.grad, torchvision_branch.predictor.mask_fcn_logits.weight.grad[1:])
    torch.testing.assert_close(ours.deconvolution.weight.grad, torchvision_branch.predictor.conv5_mask.weight.grad)
    torch.testing.assert_close(ours.convolutions[0][0].weight.grad, torchvision_branch.head[0][0].weight.grad)


@pytest.mark.parametrize(
    "changes",
    [
        {"truth": "sharp"},
        {"pool": RoIAlignConfig(size=14, sampling_ratio=2, aligned=True, level_epsilon="outside")},
        {"pool": RoIAlignConfig(size=14, sampling_ratio=0, aligned=False, level_epsilon="outside")},
    ],
)
def test_negative_control_conventions(torchvision_branch, changes):
    """Control: with any one convention changed, the comparison above fails."""
    features, boxes, labels, indices, targets = scene()
    positive = torch.ones(2, 9, dtype=torch.bool)
    samples = samples_of(boxes, labels, indices, positive)
    with torch.no_grad():
        loss = same_branch(torchvision_branch).loss(features, samples, pad_to(SIZE, targets))["loss_mask"]
        flipped = same_branch(torchvision_branch, **changes).loss(features, samples, pad_to(SIZE, targets))["loss_mask"]
    assert abs(loss - flipped) > 1e-4 * loss


def test_sharp_target_is_the_crop_of_the_mask():
    """By hand: a region that covers the left half of a square, and as much beside it, has a target that is half
    empty and half full."""
    branch = MaskBranch(INFO, CLASSES, MaskBranchConfig(pool=RoIAlignConfig(size=2), convolutions=(CHANNELS,)))
    masks = torch.zeros(1, 32, 32, dtype=torch.bool)
    masks[0, 8:24, 8:24] = True
    target = Instances(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([0]), masks)
    crops, has_mask = mask_targets(branch, torch.tensor([[0.0, 8.0, 16.0, 24.0]]), torch.tensor([0]), target)
    assert crops[0].tolist() == [[0.0, 0.0, 1.0, 1.0]] * 4
    assert has_mask.tolist() == [True]


def with_polygons(target):
    """Return the same objects with the polygons of their bitmaps in place of the bitmaps."""
    polygon_masks = pad_polygon_masks([PolygonMask.of_bitmap(mask.numpy().astype(np.uint8)) for mask in target.masks])
    return Instances(target.boxes, target.labels, polygon_masks=polygon_masks)


def mask_targets(branch, regions, indices, target):
    """Return the mask targets of regions of one image, all of them positive."""
    samples = samples_of(regions[None], torch.zeros_like(indices)[None], indices[None], torch.ones(1, len(regions)) > 0)
    return (rows[0] for rows in branch._mask_targets(samples, pad_to(SIZE, [target])))


POLYGONS = MaskBranchConfig(pool=RoIAlignConfig(size=2), convolutions=(CHANNELS,), truth="polygons")


def test_polygon_is_cropped_at_the_resolution_of_its_target():
    """By hand: a stripe a quarter of a pixel wide, which no bitmap can show, fills the second column of its region's
    target.

    A region beside it is empty; an object without a polygon in its box has no mask.
    """
    stripe = [(10.25, 8.0), (10.5, 8.0), (10.5, 9.0), (10.25, 9.0)]
    gone = [(50.0, 8.0), (51.0, 8.0), (51.0, 9.0)]
    polygon_masks = pad_polygon_masks(
        [PolygonMask.of_polygons([np.array(points, np.float32)]) for points in (stripe, gone)]
    )
    boxes = torch.tensor([[10.0, 8.0, 11.0, 9.0], [10.0, 8.0, 11.0, 9.0]])
    target = Instances(boxes, torch.tensor([0, 0]), polygon_masks=polygon_masks)
    regions = torch.tensor([[10.0, 8.0, 11.0, 9.0], [20.0, 8.0, 21.0, 9.0], [10.0, 8.0, 11.0, 9.0]])
    crops, has_mask = mask_targets(MaskBranch(INFO, CLASSES, POLYGONS), regions, torch.tensor([0, 0, 1]), target)
    assert crops[0].tolist() == [[0.0, 1.0, 0.0, 0.0]] * 4
    assert not crops[1].any()
    assert has_mask.tolist() == [True, True, False]


def test_loss_from_polygons_is_close_to_that_from_bitmaps(torchvision_branch, shapes):
    """Law: for objects much larger than a cell the targets differ along edges only, also after resizing and
    flipping."""
    features, *_ = scene()
    losses = []
    for mask_format, truth in (("bitmaps", "sharp"), ("polygons", "polygons")):
        annotations = shapes / "annotations" / "instances_train.json"
        data = build_dataset(
            CocoConfig(images=shapes / "train", annotations=annotations, masks=True, mask_format=mask_format)
        )
        transform = build_transform(ResizeConfig(short_sides=(160,), flip=1.0))
        targets = [transform(data.read(index), 0, index).target for index in range(len(data))]
        targets = [target for target in targets if len(target)][:2]
        rows = torch.stack([torch.arange(9) % len(target) for target in targets])
        boxes, labels = (
            torch.stack([part[indices] for part, indices in zip(column, rows, strict=True)])
            for column in zip(*((target.boxes, target.labels % CLASSES) for target in targets), strict=True)
        )
        samples = samples_of(boxes, labels, rows, torch.ones(2, 9, dtype=torch.bool))
        losses.append(
            same_branch(torchvision_branch, truth=truth)
            .loss(features, samples, pad_to((256, 256), targets))["loss_mask"]
            .item()
        )
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_pasted_predictions_equal_torchvisions(torchvision_branch):
    """Oracle: torchvision's probabilities for the boxes that Vertebra detected, and its pasting."""
    features, *_ = scene()
    torch.manual_seed(0)
    config = RCNNConfig(rpn=RPNConfig(post_nms=(50, 50)), box=BoxBranchConfig(score_threshold=0.0), mask=TORCHVISION)
    head = RCNNHead(INFO, CLASSES, config)
    head.mask = same_branch(torchvision_branch)
    images = Images(torch.zeros(2, 3, *SIZE, dtype=torch.uint8), torch.tensor([SIZE, (150, 170)]))
    with torch.no_grad():
        predictions = head.predict(features, images)
        boxes, labels = [found.boxes for found in predictions], [found.labels + 1 for found in predictions]
        expected = maskrcnn_inference(torchvision_branch(features, boxes), labels)
    for detections, theirs, size in zip(predictions, expected, (SIZE, (150, 170)), strict=True):
        assert len(detections) > 50
        assert detections.masks.size == size
        probabilities = paste_masks_in_image(theirs, detections.boxes, size)[:, 0]
        differ = paste_masks(detections.masks, detections.boxes) != (probabilities > 0.5)
        assert not (differ & ((probabilities - 0.5).abs() > 1e-4)).any()


def test_loss_without_masks_to_learn_is_zero():
    """Law: without objects, without positives and with an empty mask the loss and its gradient are exactly zero."""
    features, boxes, labels, indices, targets = scene()
    branch = MaskBranch(INFO, CLASSES, TORCHVISION)
    nothing = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, *SIZE, dtype=torch.bool))
    empty = [Instances(target.boxes, target.labels, torch.zeros_like(target.masks)) for target in targets]
    all_positive = samples_of(boxes, labels, indices, torch.ones(2, 9, dtype=torch.bool))
    none_positive = samples_of(boxes, labels, indices, torch.zeros(2, 9, dtype=torch.bool))
    no_object = none_positive._replace(target_indices=torch.zeros_like(indices))
    cases = ((none_positive, targets), (no_object, [nothing, nothing]), (all_positive, empty))
    of_polygons = MaskBranch(INFO, CLASSES, TORCHVISION.replace(truth="polygons"))
    for mask_branch, change in ((branch, lambda target: target), (of_polygons, with_polygons)):
        for samples, objects in cases:
            mask_branch.zero_grad()
            padded = pad_to(SIZE, [change(target) for target in objects])
            loss = mask_branch.loss(features, samples, padded)["loss_mask"]
            loss.backward()
            assert loss == 0
            assert all(not parameter.grad.any() for parameter in mask_branch.parameters())


def test_training_without_masks_is_refused():
    """docs/faults.md row 55. By hand: ValueError that names what is missing: masks, or polygons in place of bitmaps."""
    features, boxes, labels, indices, targets = scene()
    boxes_only = [Instances(target.boxes, target.labels) for target in targets]
    samples = samples_of(boxes, labels, indices, torch.ones(2, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match="needs targets with masks"):
        MaskBranch(INFO, CLASSES, TORCHVISION).loss(features, samples, pad_to(SIZE, boxes_only))
    with pytest.raises(ValueError, match="truth='polygons' needs targets with polygon_masks; these have none"):
        MaskBranch(INFO, CLASSES, POLYGONS).loss(features, samples, pad_to(SIZE, targets))


def test_mask_loss_falls_in_training():
    """Learning: the mask loss of one scene falls by a third in thirty steps."""
    features, _, _, _, targets = scene()
    torch.manual_seed(0)
    config = RCNNConfig(rpn=RPNConfig(post_nms=(50, 50)), mask=MaskBranchConfig(convolutions=(CHANNELS,) * 2))
    head = RCNNHead(INFO, CLASSES, config)
    images = Images.from_list([torch.zeros(3, *SIZE, dtype=torch.uint8)] * 2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        torch.manual_seed(0)
        terms = head.loss(features, images, targets)
        optimizer.zero_grad()
        total_loss(terms).backward()
        optimizer.step()
        losses.append(terms["loss_mask"].item())
    assert losses[-1] < 0.65 * losses[0]


def test_levels_of_different_widths_are_refused():
    """By hand: ValueError at construction with what was expected and what came."""
    uneven = {"p2": FeatureInfo(8, 4), "p3": FeatureInfo(16, 8)}
    with pytest.raises(ValueError, match=r"the mask branch needs the same channels .* have \[8, 16\]: use a neck"):
        MaskBranch(uneven, CLASSES)


def test_fixed_shapes_do_not_change_the_loss(torchvision_branch):
    """Law: if only six and four positives are computed, or all 18 samples, loss and gradient are the same."""
    features, boxes, labels, indices, targets = scene()
    samples = samples_of(boxes, labels, indices, torch.arange(9).expand(2, 9) < torch.tensor([[6], [4]]))
    state, results = same_branch(torchvision_branch).state_dict(), []
    for shapes, count in ((contextlib.nullcontext(), 10), (fixed_shapes(), 18)):
        branch = MaskBranch(INFO, CLASSES, TORCHVISION)
        branch.load_state_dict(state)
        counts = []
        branch.deconvolution.register_forward_hook(
            lambda module, inputs, output, counts=counts: counts.append(len(output))
        )
        with shapes:
            loss = branch.loss(features, samples, pad_to(SIZE, targets))["loss_mask"]
        loss.backward()
        assert counts == [count]
        results.append((loss, branch.logits.weight.grad, branch.convolutions[0][0].weight.grad))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second)


def test_batch_norm_sees_regions_with_objects_only():
    """Law: with fixed shapes, three positives among nine samples give the same statistics as the three alone."""
    torch.manual_seed(0)
    config = TORCHVISION.replace(norm="batch")
    branch = MaskBranch(INFO, CLASSES, config).train()
    features, boxes, labels, indices, targets = scene()
    nine = samples_of(boxes, labels, indices, torch.arange(9).expand(2, 9) < 3)
    alone, among = copy.deepcopy(branch), copy.deepcopy(branch)
    cases = ((alone, nine.first(3)), (among, nine))
    padded = pad_to(SIZE, targets)
    with fixed_shapes():
        losses = [mask_branch.loss(features, samples, padded)["loss_mask"] for mask_branch, samples in cases]
    torch.testing.assert_close(*losses)
    for (name, first), second in zip(alone.named_buffers(), among.buffers(), strict=True):
        if "running" in name:
            torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)  # except for Bessel's correction
