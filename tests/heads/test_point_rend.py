"""PointRend's mask branch against loops over regions and points, and laws of its losses and masks."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vertebra.heads import (
    BoxBranchConfig,
    PointRendBranch,
    PointRendBranchConfig,
    RCNNConfig,
    RCNNHead,
    RPNConfig,
)
from vertebra.ops import fixed_shapes, random_points, total_loss
from vertebra.structures import Images, Instances

from ..helpers.plain_points import bilinear
from ..helpers.regions import detections_at, pad_to
from .test_mask_branch import CLASSES, INFO, SIZE, samples_of, scene

SMALL = PointRendBranchConfig(
    levels=("p2", "p3"), grid=4, channels=6, fc=(12,), coarse_size=3,
    point_head={"channels": (8, 8), "points": 10, "subdivisions": 3, "subdivision_points": 40},
)  # fmt: skip


def random_branch(config: PointRendBranchConfig = SMALL) -> PointRendBranch:
    """Return a branch with large random weights."""
    torch.manual_seed(0)
    branch = PointRendBranch(INFO, CLASSES, config)
    with torch.no_grad():
        for parameter in branch.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
            parameter.normal_(std=2.0 / fan_in**0.5)
    return branch


@pytest.fixture
def seeds(monkeypatch) -> Tensor:
    """Return the seeds of two images, which the branch draws too."""
    values = torch.tensor([11, 12])
    monkeypatch.setattr("vertebra.heads.point_rend.draw_image_seeds", lambda count, device: values[:count])
    return values


def plain_coarse(branch: PointRendBranch, maps: list[Tensor], box: list[float]) -> Tensor:
    """Return the coarse logits (k, s, s) of a region, from the features of one image on its levels."""
    grid, config = [(index + 0.5) / 4 for index in range(4)], branch.config
    cells = torch.stack([torch.stack([plain_features(maps, box, (x, y)) for x in grid]) for y in grid])
    blocks = [
        sum(
            branch.convolution.weight[:, :, y, x] @ cells[2 * row + y, 2 * column + x]
            for y in range(2)
            for x in range(2)
        )
        + branch.convolution.bias
        for row in range(2)
        for column in range(2)
    ]
    hidden = F.relu(torch.stack(blocks, dim=1)).flatten()  # ordered by channel, then by cell
    hidden = F.relu(branch.fc[0].weight @ hidden + branch.fc[0].bias)
    logits = branch.coarse_logits.weight @ hidden + branch.coarse_logits.bias
    return logits.view(CLASSES, config.coarse_size, config.coarse_size)


def plain_features(maps: list[Tensor], box: list[float], point: tuple[float, float]) -> Tensor:
    """Return the features of all levels at a point relative to a region."""
    x, y = box[0] + point[0] * (box[2] - box[0]), box[1] + point[1] * (box[3] - box[1])
    return torch.cat([bilinear(level, x / stride, y / stride) for level, stride in zip(maps, (4, 8), strict=True)])


def plain_point(
    branch: PointRendBranch, maps: list[Tensor], box: list[float], coarse: Tensor, point: tuple[float, float]
) -> Tensor:
    """Return the logits (k,) at a point relative to a region; the coarse logits join the input of every layer."""
    size = coarse.shape[-1]
    coarse_logits = bilinear(coarse, point[0] * size, point[1] * size)
    hidden = plain_features(maps, box, point)
    for layer in branch.point_head.layers:
        hidden = F.relu(layer.weight[:, :, 0] @ torch.cat([hidden, coarse_logits]) + layer.bias)
    output = branch.point_head.logits
    return output.weight[:, :, 0] @ torch.cat([hidden, coarse_logits]) + output.bias


@torch.no_grad()
def test_losses_equal_a_plain_loop(seeds):
    """Oracle: every positive region alone: its coarse mask, the seven most uncertain of its thirty candidates and three
    uniform points, with the bitmap interpolated there as target."""
    branch = random_branch()
    features, boxes, labels, indices, targets = scene()
    positive = torch.arange(9).expand(2, 9) < torch.tensor([[3], [2]])
    found = branch.loss(features, samples_of(boxes, labels, indices, positive), pad_to(SIZE, targets))
    drawn = random_points(seeds, 9, 33)
    coarse_errors, point_errors = [], []
    for image, target in enumerate(targets):
        maps = [features[level][image] for level in ("p2", "p3")]
        for row in positive[image].nonzero()[:, 0].tolist():
            box, label, size = boxes[image, row].tolist(), labels[image, row], SMALL.coarse_size
            mask = target.masks[indices[image, row]].float()
            coarse = plain_coarse(branch, maps, box)
            crop = crop_plainly(mask, box, size)
            coarse_errors.append(F.binary_cross_entropy_with_logits(coarse[label], crop))
            points = drawn[image, row].tolist()
            near = {point: bilinear(coarse[label][None], point[0] * size, point[1] * size).abs().item()
                    for point in map(tuple, points[:30])}  # fmt: skip
            for point in [*sorted(near, key=near.__getitem__)[:7], *points[30:]]:
                logit = plain_point(branch, maps, box, coarse, point)[label]
                x, y = (box[axis] + point[axis] * (box[axis + 2] - box[axis]) for axis in (0, 1))
                point_errors.append(F.binary_cross_entropy_with_logits(logit, bilinear(mask[None], x, y)[0]))
    assert len(point_errors) == 50
    torch.testing.assert_close(found["loss_mask"], torch.stack(coarse_errors).mean(), rtol=1e-4, atol=0)
    torch.testing.assert_close(found["loss_mask_points"], torch.stack(point_errors).mean(), rtol=1e-4, atol=0)


def crop_plainly(mask: Tensor, box: list[float], size: int) -> Tensor:
    """Return the mask on a grid over a box: whether at least half of the samples, one per pixel, are in the mask."""
    cells = torch.zeros(size, size)
    width, height = (box[2] - box[0]) / size, (box[3] - box[1]) / size
    across, down = int(-(-width // 1)), int(-(-height // 1))
    for row in range(size):
        for column in range(size):
            samples = [
                bilinear(mask[None], box[0] + (column + (i + 0.5) / across) * width,
                         box[1] + (row + (j + 0.5) / down) * height)[0]
                for i in range(across) for j in range(down)
            ]  # fmt: skip
            cells[row, column] = float(torch.stack(samples).mean() >= 0.5)
    return cells


@torch.no_grad()
def test_masks_equal_a_plain_loop():
    """Oracle: a region at a time: all cells of the first grid of 6x6, then twice the 40 most uncertain cells."""
    branch = random_branch()
    features, boxes, labels, *_ = scene()
    found = branch.predict(features, detections_at(boxes[:, :2], labels[:, :2]))
    assert found.shape == (2, 2, 24, 24) and found.std() > 0.1
    for image in range(2):
        maps = [features[level][image] for level in ("p2", "p3")]
        for row in range(2):
            box, label = boxes[image, row].tolist(), labels[image, row]
            coarse = plain_coarse(branch, maps, box)

            def logit(index: int, size: int, box=box, maps=maps, coarse=coarse, label=label) -> Tensor:
                point = ((index % size + 0.5) / size, (index // size + 0.5) / size)
                return plain_point(branch, maps, box, coarse, point)[label]

            cells = torch.stack([logit(index, 6) for index in range(36)])
            for size in (12, 24):
                cells = F.interpolate(cells.view(1, 1, size // 2, size // 2), scale_factor=2.0, mode="bilinear")
                cells = cells.flatten()
                for index in sorted(range(size**2), key=lambda cell: abs(cells[cell].item()))[:40]:
                    cells[index] = logit(index, size)
            torch.testing.assert_close(found[image, row].flatten(), cells.sigmoid(), rtol=1e-3, atol=1e-4)


def test_first_grid_by_hand():
    """By hand: 784 points predict all cells up to 28x28, so of five subdivisions of 7x7 three are left."""
    assert PointRendBranchConfig().first_grid == (28, 3)
    assert PointRendBranchConfig(point_head={"subdivision_points": 100}).first_grid == (7, 5)
    assert PointRendBranchConfig(point_head={"subdivisions": 1}).first_grid == (14, 0)


def test_losses_do_not_depend_on_batch_mates(seeds, monkeypatch):
    """Law: the losses of two images are the means of those of each alone, weighted by positives.

    The points of a region follow from the seed of its image, and not from the number of rows of the batch.
    """
    branch = random_branch()
    features, boxes, labels, indices, targets = scene()
    positive = torch.arange(9).expand(2, 9) < torch.tensor([[6], [2]])
    samples = samples_of(boxes, labels, indices, positive)
    together = branch.loss(features, samples, pad_to(SIZE, targets))
    with fixed_shapes():
        torch.testing.assert_close(branch.loss(features, samples, pad_to(SIZE, targets)), together)
    alone = []
    for image in range(2):
        one = slice(image, image + 1)
        seed = seeds[one]
        monkeypatch.setattr("vertebra.heads.point_rend.draw_image_seeds", lambda count, device, seed=seed: seed)
        level = {name: maps[one] for name, maps in features.items()}
        sample = samples_of(boxes[one], labels[one], indices[one], positive[one])
        alone.append(branch.loss(level, sample, pad_to(SIZE, targets[one])))
    for name, loss in together.items():
        torch.testing.assert_close(loss, (6 * alone[0][name] + 2 * alone[1][name]) / 8)


def test_losses_without_masks_to_learn_are_zero():
    """Law: without objects, without positives and with empty masks both losses and their gradients are exactly zero."""
    features, boxes, labels, indices, targets = scene()
    branch = random_branch()
    nothing = Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, *SIZE, dtype=torch.bool))
    empty = [Instances(target.boxes, target.labels, torch.zeros_like(target.masks)) for target in targets]
    all_positive = samples_of(boxes, labels, indices, torch.ones(2, 9, dtype=torch.bool))
    none_positive = samples_of(boxes, labels, indices, torch.zeros(2, 9, dtype=torch.bool))
    no_object = none_positive._replace(target_indices=torch.zeros_like(indices))
    for samples, objects in ((none_positive, targets), (no_object, [nothing, nothing]), (all_positive, empty)):
        branch.zero_grad()
        losses = branch.loss(features, samples, pad_to(SIZE, objects))
        total_loss(losses).backward()
        assert all(loss == 0 for loss in losses.values())
        assert all(not parameter.grad.any() for parameter in branch.parameters())


def test_training_without_masks_is_refused():
    """docs/faults.md row 55. By hand: ValueError that names what is missing."""
    features, boxes, labels, indices, targets = scene()
    boxes_only = [Instances(target.boxes, target.labels) for target in targets]
    samples = samples_of(boxes, labels, indices, torch.ones(2, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match="a PointRend branch needs targets with masks; these have none"):
        random_branch().loss(features, samples, pad_to(SIZE, boxes_only))


def test_two_mask_branches_are_refused():
    """By hand: ValueError with the two fields; one of them may replace the other."""
    config = RCNNConfig(mask={})
    with pytest.raises(ValueError, match=r"mask and point_rend both predict masks: set one of them to None"):
        config.replace(point_rend=PointRendBranchConfig())
    assert config.replace(mask=None, point_rend=PointRendBranchConfig()).mask_format == "bitmaps"


def test_missing_level_is_refused():
    """By hand: ValueError at construction with the levels that there are."""
    with pytest.raises(ValueError, match=r"the PointRend branch reads levels \('p2',\), but the input has \('p3',\)"):
        PointRendBranch({"p3": INFO["p3"]}, CLASSES)


def test_repeated_level_is_refused():
    """Symptom: the first step ended with an error of a convolution. By hand: ValueError at construction."""
    with pytest.raises(ValueError, match=r"the PointRend branch reads each level once; got \('p3', 'p3'\)"):
        PointRendBranch(INFO, CLASSES, PointRendBranchConfig(levels=("p3", "p3")))


def small_head(**changes) -> RCNNHead:
    """Return a small R-CNN with PointRend."""
    torch.manual_seed(0)
    config = RCNNConfig(
        rpn=RPNConfig(post_nms=(50, 50)), box=BoxBranchConfig(fc=(16,), score_threshold=0.0), point_rend=SMALL
    )
    return RCNNHead(INFO, CLASSES, config.replace(**changes))


def test_branch_learns_from_refined_boxes(monkeypatch):
    """Law: with ``branch_boxes="refined"`` the branch gets the samples with the boxes that the box branch refines for
    the class of their object; one that leaves the image stays as it was. Otherwise it gets the proposals."""
    features, _, _, _, targets = scene()
    images = Images.from_list([torch.zeros(3, *SIZE, dtype=torch.uint8)] * 2)
    seen = {}
    for boxes in ("proposals", "refined"):
        head = small_head(branch_boxes=boxes)
        nn.init.normal_(head.box.box_offsets.weight, std=5.0)
        samples = []
        monkeypatch.setattr(
            head.point_rend, "loss", lambda features, sample, targets, to=samples: to.append(sample) or {}
        )
        torch.manual_seed(1)
        head.loss(features, images, targets)
        (seen[boxes],) = samples
    before, after = seen["proposals"], seen["refined"]
    assert torch.equal(before.labels, after.labels) and torch.equal(before.valid, after.valid)
    output = head.box(features, before.proposals)
    moved = head.box.refine(output, before.proposals, images, before.labels)
    lost = ~moved.valid & before.valid
    assert lost.any() and torch.equal(after.boxes[lost], before.boxes[lost])
    torch.testing.assert_close(after.boxes[moved.valid], moved.boxes[moved.valid])


def test_image_without_detections_has_no_masks():
    """By hand: with a score threshold that nothing reaches, there are zero masks of the final size."""
    features, *_ = scene()
    images = Images.from_list([torch.zeros(3, *SIZE, dtype=torch.uint8)] * 2)
    head = small_head(box={"score_threshold": 1.0})
    with torch.no_grad():
        assert [found.masks.grids.shape for found in head.predict(features, images)] == [(0, 24, 24)] * 2
