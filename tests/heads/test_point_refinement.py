"""PointRend's refinement of semantic logits against loops over points, and laws of its loss."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vertebra.heads import HEADS, PointRefinement, PointRefinementConfig, SemanticFPNConfig, SemanticFPNHead
from vertebra.ops import full_size_logits, random_points, total_loss
from vertebra.structures import IGNORE, FeatureInfo, Images

from ..helpers.plain_points import bilinear
from ..helpers.semantic import CLASSES, NAMES, build_head, scene

SMALL = PointRefinementConfig(channels=(12, 12), points=20, subdivision_points=30)
SIZES = ((64, 96), (48, 80))


@pytest.fixture
def refinement() -> PointRefinement:
    """Return a refinement with large random weights."""
    torch.manual_seed(0)
    part = PointRefinement({"p2": FeatureInfo(8, 4)}, CLASSES, SMALL)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.normal_(std=0.5)
    return part


def plain_logits(refinement: PointRefinement, coarse: Tensor, level: Tensor, point: tuple[float, float]) -> Tensor:
    """Return the logits (k,) at a point of an image; the coarse logits join the input of the first layer."""
    x, y = point
    coarse_logits = bilinear(coarse, x * coarse.shape[2], y * coarse.shape[1])
    hidden = torch.cat([bilinear(level, x * level.shape[2], y * level.shape[1]), coarse_logits])
    for layer in refinement.point_head.layers:
        hidden = F.relu(layer.weight[:, :, 0] @ hidden + layer.bias)
    output = refinement.point_head.logits
    return output.weight[:, :, 0] @ hidden + output.bias


def margin(logits: Tensor) -> float:
    """Return by how much the highest logit exceeds the second highest."""
    best, second = logits.sort(descending=True).values[:2].tolist()
    return best - second


@torch.no_grad()
def test_loss_equals_a_plain_loop(refinement, monkeypatch):
    """Oracle: 15 of 60 candidates inside each image with the smallest margin, and 5 uniform points; points without a
    label are ignored."""
    features, images, truth = scene(sizes=SIZES)
    truth[0][:20] = IGNORE
    coarse = torch.randn(2, CLASSES, 8, 12, generator=torch.Generator().manual_seed(2))
    seeds = torch.tensor([3, 4])
    monkeypatch.setattr("vertebra.heads.semantic.points.draw_image_seeds", lambda count, device: seeds)
    target = torch.full((2, 64, 96), IGNORE)
    for row, labels in zip(target, truth, strict=True):
        row[: labels.shape[0], : labels.shape[1]] = labels
    found = refinement.loss(coarse, features, images, target, None)
    errors = []
    for image, (height, width) in enumerate(SIZES):
        drawn = random_points(seeds[image : image + 1], 1, 65)[0, 0] * torch.tensor([width / 96, height / 64])
        points = [(x, y) for x, y in drawn.tolist()]
        margins = {(x, y): margin(bilinear(coarse[image], x * 12, y * 8)) for x, y in points[:60]}
        for x, y in [*sorted(margins, key=margins.__getitem__)[:15], *points[60:]]:
            label = truth[image][int(y * 64), int(x * 96)]
            if label != IGNORE:
                logits = plain_logits(refinement, coarse[image], features["p2"][image], (x, y))
                errors.append(F.cross_entropy(logits, label))
    assert 20 < len(errors) < 40
    torch.testing.assert_close(found, torch.stack(errors).mean(), rtol=1e-4, atol=0)


@torch.no_grad()
def test_refined_logits_equal_a_plain_loop(refinement):
    """Oracle: twice, the 30 cells with the smallest margin are predicted anew on a grid of twice the size."""
    features, _, _ = scene(sizes=SIZES)
    coarse = torch.randn(2, CLASSES, 8, 12, generator=torch.Generator().manual_seed(2))
    refined = refinement.refine(coarse, features)
    assert refined.shape == (2, CLASSES, 32, 48)
    for image in range(2):
        maps = coarse[image][None]
        for _ in range(2):
            maps = F.interpolate(maps, scale_factor=2.0, mode="bilinear")
            rows, columns = maps.shape[-2:]
            cells = maps.flatten(2)[0]
            margins = [margin(cells[:, index]) for index in range(rows * columns)]
            for index in sorted(range(len(margins)), key=margins.__getitem__)[:30]:
                point = ((index % columns + 0.5) / columns, (index // columns + 0.5) / rows)
                cells[:, index] = plain_logits(refinement, coarse[image], features["p2"][image], point)
            maps = cells.view(1, CLASSES, rows, columns)
        torch.testing.assert_close(refined[image], maps[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_semantic_head_can_be_refined(name):
    """Law: every head trains its refinement, and predicts logits of four times the resolution; other losses stay."""
    features, images, truth = scene(sizes=SIZES)
    plain, head = build_head(name).eval(), build_head(name, refinement=SMALL).eval()
    head.load_state_dict(plain.state_dict(), strict=False)
    outputs = head.loss(features, images, truth)
    expected = plain.loss(features, images, truth)
    assert outputs.keys() == {*expected, "loss_points"}
    torch.testing.assert_close({key: outputs[key] for key in expected}, expected)
    total_loss(outputs).backward()
    assert all(parameter.grad is not None for parameter in head.refinement.parameters())
    with torch.no_grad():
        finer, coarser = head.predict(features, images)[1], plain.predict(features, images)[1]
    assert finer.windows[0].grid.shape[-1] == 4 * coarser.windows[0].grid.shape[-1]
    assert full_size_logits(finer).shape == full_size_logits(coarser).shape


@torch.no_grad()
def test_loss_does_not_depend_on_padding_or_batch_mates(refinement, monkeypatch):
    """Law: an image alone has the loss that it has beside a larger one, whose padding has no label."""
    features, images, truth = scene(sizes=SIZES)
    coarse = torch.randn(2, CLASSES, 16, 24, generator=torch.Generator().manual_seed(2))
    coarse[1, :, 12:], coarse[1, :, :, 20:] = 0, 0
    features["p2"][1, :, 12:], features["p2"][1, :, :, 20:] = 0, 0
    target = torch.full((2, 64, 96), IGNORE)
    target[1, :48, :80] = truth[1]
    monkeypatch.setattr(
        "vertebra.heads.semantic.points.draw_image_seeds", lambda count, device: torch.tensor([3, 4])[-count:]
    )
    beside = refinement.loss(coarse, features, images, target, None)
    alone = Images.from_list([images.pixels[1, :, :48, :80]], divisor=1)
    level = {"p2": features["p2"][1:, :, :12, :20]}
    torch.testing.assert_close(beside, refinement.loss(coarse[1:, :, :12, :20], level, alone, truth[1][None], None))


def test_missing_level_of_the_refinement_is_refused():
    """By hand: ValueError at construction."""
    with pytest.raises(ValueError, match=r"the refinement reads levels \('p2',\), but the input has"):
        HEADS.build(
            SemanticFPNConfig(levels=("p3", "p4"), refinement=SMALL),
            {"p3": FeatureInfo(8, 8), "p4": FeatureInfo(8, 16)},
            3,
        )


def test_refined_head_overfits_thin_stripes():
    """Learning: from features of stride 4 that tell where two stripes three pixels wide are, the refined logits label
    more pixels correctly than the same head without refinement after the same steps."""
    truth = torch.zeros(1, 64, 64, dtype=torch.int64)
    truth[0, 9:12], truth[0, :, 37:40] = 1, 2
    images = Images.from_list([torch.zeros(3, 64, 64, dtype=torch.uint8)], divisor=1)
    # The 16 pixels of each cell are its channels, so that the position of an edge within a cell can be learned.
    cells = F.pixel_unshuffle(F.one_hot(truth, 3).permute(0, 3, 1, 2).float(), 4)
    features = {"p2": cells, "p3": F.avg_pool2d(cells, 2)}
    info = {"p2": FeatureInfo(48, 4), "p3": FeatureInfo(48, 8)}
    accuracies = []
    for refinement in (None, PointRefinementConfig(channels=(64, 64), points=512, subdivision_points=512)):
        torch.manual_seed(0)
        head = SemanticFPNHead(info, 3, SemanticFPNConfig(levels=("p2", "p3"), channels=32, refinement=refinement))
        optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
        for _ in range(80):
            optimizer.zero_grad()
            total_loss(head.loss(features, images, list(truth))).backward()
            optimizer.step()
        with torch.no_grad():
            labels = full_size_logits(head.predict(features, images)[0]).argmax(dim=0)
        accuracies.append((labels == truth[0]).float().mean().item())
    plain, refined = accuracies
    assert refined > plain + 0.05
