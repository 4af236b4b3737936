"""The mask branch against torchvision's, same weights; and what it does where there is nothing to learn."""

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
from vertebra.ops import RoIAlignConfig, paste_masks
from vertebra.structures import FeatureInfo, Images, Instances

CLASSES, CHANNELS = 5, 16
INFO = {f"p{level}": FeatureInfo(CHANNELS, 2**level) for level in (2, 3, 4, 5)}
SIZE = (160, 192)
TORCHVISION = MaskBranchConfig(
    pool=RoIAlignConfig(size=14, sampling_ratio=2, aligned=False, level_epsilon="outside"),
    convolutions=(CHANNELS,) * 4,
    truth="soft",
    paste="padded",
)


class Theirs(nn.Module):
    """torchvision's branch of the same size; its class 0 is the background."""

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
def theirs():
    torch.manual_seed(0)
    return Theirs()


def twin_of(theirs, **changes):
    """Our branch with its weights; the background's mask is left out."""
    ours = MaskBranch(INFO, CLASSES, TORCHVISION.replace(**changes))
    names = {}
    for index in range(4):
        for kind in ("weight", "bias"):
            names[f"convolutions.{index}.0.{kind}"] = theirs.head[index][0].get_parameter(kind)
    for kind in ("weight", "bias"):
        names[f"deconvolution.{kind}"] = theirs.predictor.conv5_mask.get_parameter(kind)
        names[f"logits.{kind}"] = theirs.predictor.mask_fcn_logits.get_parameter(kind)[1:]
    ours.load_state_dict({name: value.detach().clone() for name, value in names.items()})
    return ours


def scene():
    """Two images with features, regions on every level and true masks of three and two objects."""
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
        middles = torch.rand(count, 2, generator=generator) * 90 + 30
        masks = torch.stack([(rows - y) ** 2 + (columns - x) ** 2 < (20 + y / 4) ** 2 for x, y in middles])
        corners = torch.tensor([[10.0, 10.0, 90.0, 90.0]]).expand(count, 4)
        targets.append(Instances(corners, torch.randint(0, CLASSES, (count,), generator=generator), masks))
    objects = torch.stack([torch.randint(0, len(target), (9,), generator=generator) for target in targets])
    labels = torch.stack([target.labels[own] for target, own in zip(targets, objects, strict=True)])
    return features, boxes, labels, objects, targets


def samples_of(boxes, labels, objects, positive):
    """Regions as the box branch draws them; those that are not positive are background."""
    labels = torch.where(positive, labels, CLASSES)
    return RegionSamples(boxes, torch.ones_like(positive), labels, boxes, objects)


def test_masks_are_torchvisions(theirs):
    """Oracle: torchvision's probabilities for the same regions and labels."""
    features, boxes, labels, *_ = scene()
    with torch.no_grad():
        expected = maskrcnn_inference(theirs(features, list(boxes)), [own + 1 for own in labels])
        probabilities = twin_of(theirs)(features, boxes, labels).sigmoid()
    for own, their in zip(probabilities, expected, strict=True):
        torch.testing.assert_close(own, their[:, 0], rtol=1e-4, atol=1e-5)
        assert own.std() > 0.1


def test_loss_and_gradient_are_torchvisions(theirs):
    """Oracle: torchvision's loss over the same positives, and its gradient of every weight; 0 for its background's."""
    features, boxes, labels, objects, targets = scene()
    positive = torch.arange(9).expand(2, 9) < torch.tensor([[6], [4]])
    ours = twin_of(theirs)
    loss = ours.loss(features, samples_of(boxes, labels, objects, positive), targets)["loss_mask"]
    chosen = [rows[mask] for rows, mask in zip(boxes, positive, strict=True)]
    expected = maskrcnn_loss(
        theirs(features, chosen),
        chosen,
        [target.masks.float() for target in targets],
        [target.labels + 1 for target in targets],
        [own[mask] for own, mask in zip(objects, positive, strict=True)],
    )
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.logits.weight.grad, theirs.predictor.mask_fcn_logits.weight.grad[1:])
    torch.testing.assert_close(ours.deconvolution.weight.grad, theirs.predictor.conv5_mask.weight.grad)
    torch.testing.assert_close(ours.convolutions[0][0].weight.grad, theirs.head[0][0].weight.grad)


@pytest.mark.parametrize(
    "changes",
    [
        {"truth": "sharp"},
        {"pool": RoIAlignConfig(size=14, sampling_ratio=2, aligned=True, level_epsilon="outside")},
        {"pool": RoIAlignConfig(size=14, sampling_ratio=0, aligned=False, level_epsilon="outside")},
    ],
)
def test_each_convention_flipped_alone_differs(theirs, changes):
    """Negative control: without it the agreement above would prove nothing."""
    features, boxes, labels, objects, targets = scene()
    positive = torch.ones(2, 9, dtype=torch.bool)
    samples = samples_of(boxes, labels, objects, positive)
    with torch.no_grad():
        loss = twin_of(theirs).loss(features, samples, targets)["loss_mask"]
        flipped = twin_of(theirs, **changes).loss(features, samples, targets)["loss_mask"]
    assert abs(loss - flipped) > 1e-4 * loss


def test_a_sharp_target_is_the_mask_cut_out():
    """Hand-drawn: a region that covers a square's left half and as much beside it learns: empty, then full."""
    branch = MaskBranch(INFO, CLASSES, MaskBranchConfig(pool=RoIAlignConfig(size=2), convolutions=(CHANNELS,)))
    masks = torch.zeros(1, 32, 32, dtype=torch.bool)
    masks[0, 8:24, 8:24] = True
    target = Instances(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), torch.tensor([0]), masks)
    truth, known = branch._truth(torch.tensor([[0.0, 8.0, 16.0, 24.0]]), torch.tensor([0]), target)
    assert truth[0].tolist() == [[0.0, 0.0, 1.0, 1.0]] * 4
    assert known.tolist() == [True]


def outlined(target):
    """The same objects with the outlines of their bitmaps in place of those."""
    polygon_masks = pad_polygon_masks([PolygonMask.of_bitmap(mask.numpy().astype(np.uint8)) for mask in target.masks])
    return Instances(target.boxes, target.labels, polygon_masks=polygon_masks)


POLYGONS = MaskBranchConfig(pool=RoIAlignConfig(size=2), convolutions=(CHANNELS,), truth="polygons")


def test_a_polygon_is_cropped_at_the_resolution_of_its_target():
    """Hand-drawn: a stripe of a quarter of a pixel, which no bitmap holds, is the second column of its region; a region
    beside it is empty; an object without an outline in its box teaches nothing."""
    stripe = [(10.25, 8.0), (10.5, 8.0), (10.5, 9.0), (10.25, 9.0)]
    gone = [(50.0, 8.0), (51.0, 8.0), (51.0, 9.0)]
    polygon_masks = pad_polygon_masks([PolygonMask.of_polygons([np.array(own, np.float32)]) for own in (stripe, gone)])
    boxes = torch.tensor([[10.0, 8.0, 11.0, 9.0], [10.0, 8.0, 11.0, 9.0]])
    target = Instances(boxes, torch.tensor([0, 0]), polygon_masks=polygon_masks)
    regions = torch.tensor([[10.0, 8.0, 11.0, 9.0], [20.0, 8.0, 21.0, 9.0], [10.0, 8.0, 11.0, 9.0]])
    truth, known = MaskBranch(INFO, CLASSES, POLYGONS)._truth(regions, torch.tensor([0, 0, 1]), target)
    assert truth[0].tolist() == [[0.0, 1.0, 0.0, 0.0]] * 4
    assert not truth[1].any()
    assert known.tolist() == [True, True, False]


def test_the_loss_from_outlines_is_nearly_that_from_bitmaps(theirs, shapes):
    """A law: for objects much larger than a cell the two truths differ along outlines only. Through the whole data
    path: files, a resize, a flip."""
    features, *_ = scene()
    losses = []
    for kind, truth in (("bitmaps", "sharp"), ("polygons", "polygons")):
        annotations = shapes / "annotations" / "instances_train.json"
        data = build_dataset(CocoConfig(images=shapes / "train", annotations=annotations, masks=True, mask_format=kind))
        transform = build_transform(ResizeConfig(short_sides=(160,), flip=1.0))
        targets = [transform(data.read(index), 0, index).target for index in range(len(data))]
        targets = [target for target in targets if len(target)][:2]
        rows = torch.stack([torch.arange(9) % len(target) for target in targets])
        boxes, labels = (
            torch.stack([part[own] for part, own in zip(column, rows, strict=True)])
            for column in zip(*((each.boxes, each.labels % CLASSES) for each in targets), strict=True)
        )
        samples = samples_of(boxes, labels, rows, torch.ones(2, 9, dtype=torch.bool))
        losses.append(twin_of(theirs, truth=truth).loss(features, samples, targets)["loss_mask"].item())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_predictions_are_torchvisions_pasted(theirs):
    """Oracle: torchvision's probabilities of the boxes that we found, and its way to paste them."""
    features, *_ = scene()
    torch.manual_seed(0)
    config = RCNNConfig(rpn=RPNConfig(post_nms=(50, 50)), box=BoxBranchConfig(score_threshold=0.0), mask=TORCHVISION)
    head = RCNNHead(INFO, CLASSES, config)
    head.mask = twin_of(theirs)
    images = Images(torch.zeros(2, 3, *SIZE, dtype=torch.uint8), torch.tensor([SIZE, (150, 170)]))
    with torch.no_grad():
        found = head.predict(features, images)
        boxes, labels = [own.boxes for own in found], [own.labels + 1 for own in found]
        expected = maskrcnn_inference(theirs(features, boxes), labels)
    for own, their, size in zip(found, expected, (SIZE, (150, 170)), strict=True):
        assert len(own) > 50
        assert own.masks.size == size
        probabilities = paste_masks_in_image(their, own.boxes, size)[:, 0]
        differ = paste_masks(own.masks, own.boxes) != (probabilities > 0.5)
        assert not (differ & ((probabilities - 0.5).abs() > 1e-4)).any()


def test_where_there_is_nothing_to_learn_the_loss_is_zero():
    """Law: no object, no positive and an empty mask teach nothing, and the gradient is exactly zero."""
    features, boxes, labels, objects, targets = scene()
    branch = MaskBranch(INFO, CLASSES, TORCHVISION)
    nothing = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, *SIZE, dtype=torch.bool))
    empty = [Instances(target.boxes, target.labels, torch.zeros_like(target.masks)) for target in targets]
    all_positive = samples_of(boxes, labels, objects, torch.ones(2, 9, dtype=torch.bool))
    none_positive = samples_of(boxes, labels, objects, torch.zeros(2, 9, dtype=torch.bool))
    cases = ((none_positive, targets), (none_positive, [nothing, nothing]), (all_positive, empty))
    from_outlines = MaskBranch(INFO, CLASSES, TORCHVISION.replace(truth="polygons"))
    for net, change in ((branch, lambda target: target), (from_outlines, outlined)):
        for samples, truth in cases:
            net.zero_grad()
            loss = net.loss(features, samples, [change(target) for target in truth])["loss_mask"]
            loss.backward()
            assert loss == 0
            assert all(not parameter.grad.any() for parameter in net.parameters())


def test_masks_are_needed_to_learn_masks():
    """docs/faults.md row 55: boxes alone are refused by name."""
    features, boxes, labels, objects, targets = scene()
    boxes_only = [Instances(target.boxes, target.labels) for target in targets]
    samples = samples_of(boxes, labels, objects, torch.ones(2, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match="learns from Instances with masks"):
        MaskBranch(INFO, CLASSES, TORCHVISION).loss(features, samples, boxes_only)
    with pytest.raises(ValueError, match="truth='polygons' learns from Instances with polygon_masks; these have none"):
        MaskBranch(INFO, CLASSES, POLYGONS).loss(features, samples, targets)


def test_the_head_learns_masks_beside_boxes():
    """Learning: the mask loss of one scene falls by a third in thirty steps; its shapes follow from the config."""
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
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append(terms["loss_mask"].item())
    assert losses[-1] < 0.65 * losses[0]


def test_levels_of_different_widths_are_refused():
    """At construction, saying what was wanted and what came."""
    uneven = {"p2": FeatureInfo(8, 4), "p3": FeatureInfo(16, 8)}
    with pytest.raises(ValueError, match=r"the mask branch needs the same channels .* have \[8, 16\]: use a neck"):
        MaskBranch(uneven, CLASSES)


def test_as_many_rows_as_needed_or_fixed_ones_learn_the_same(theirs):
    """A law: six rows for six and four positives, or all nine: one loss, one gradient."""
    features, boxes, labels, objects, targets = scene()
    samples = samples_of(boxes, labels, objects, torch.arange(9).expand(2, 9) < torch.tensor([[6], [4]]))
    state, found = twin_of(theirs).state_dict(), []
    for fixed, rows in ((False, 6), (True, 9)):
        branch = MaskBranch(INFO, CLASSES, TORCHVISION.replace(fixed_rows=fixed))
        branch.load_state_dict(state)
        seen = []
        branch.deconvolution.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(len(output)))
        loss = branch.loss(features, samples, targets)["loss_mask"]
        loss.backward()
        assert seen == [2 * rows]
        found.append((loss, branch.logits.weight.grad, branch.convolutions[0][0].weight.grad))
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)


def test_batch_norm_sees_regions_with_objects_only():
    """A law: three positives among nine fixed rows leave the same statistics as those three alone."""
    torch.manual_seed(0)
    config = TORCHVISION.replace(norm="batch", fixed_rows=True)
    branch = MaskBranch(INFO, CLASSES, config).train()
    features, boxes, labels, objects, targets = scene()
    nine = samples_of(boxes, labels, objects, torch.arange(9).expand(2, 9) < 3)
    alone, among = copy.deepcopy(branch), copy.deepcopy(branch)
    three = RegionSamples(*(part[:, :3] for part in nine))
    losses = [net.loss(features, samples, targets)["loss_mask"] for net, samples in ((alone, three), (among, nine))]
    torch.testing.assert_close(*losses)
    for (name, first), second in zip(alone.named_buffers(), among.buffers(), strict=True):
        if "running" in name:
            torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)  # but for Bessel's correction
