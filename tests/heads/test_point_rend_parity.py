"""PointRend against detectron2's project with the same weights; skipped if the project is not installed.

detectron2's Python code is sufficient, its compiled extension is not needed. Each convention is also changed alone, and
the comparison must then fail.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vertebra.heads import PointRefinement, PointRefinementConfig, PointRendBranch, PointRendBranchConfig
from vertebra.ops import random_points
from vertebra.structures import Images

from ..helpers.regions import detections_at, pad_to
from .test_mask_branch import INFO, SIZE, samples_of, scene

mask_head = pytest.importorskip("point_rend.mask_head", reason="detectron2's PointRend project is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

CLASSES, CHANNELS = 5, 16
OURS = PointRendBranchConfig(channels=CHANNELS, fc=(64, 64), point_head={"channels": (32, 32, 32)})


def random_twins(config: PointRendBranchConfig = OURS) -> tuple[PointRendBranch, Any]:
    """Return our branch under a convention, and detectron2's mask head with the same random weights."""
    twin = detectron2_head()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.normal_(std=2.0 / parameter[0].numel() ** 0.5 if "weight" in name else 0.1, generator=generator)
    ours = PointRendBranch(INFO, CLASSES, config)
    names = {"convolution": "coarse_head.reduce_spatial_dim_conv", "coarse_logits": "coarse_head.prediction"}
    names |= {f"fc.{index}": f"coarse_head.fc{index + 1}" for index in range(2)}
    names |= {f"point_head.layers.{index}": f"point_head.fc{index + 1}" for index in range(3)}
    names["point_head.logits"] = "point_head.predictor"
    for name, module in names.items():
        weights = twin.get_submodule(module).state_dict()
        if (
            not config.point_head.coarse_in_every_layer
            and name.startswith("point_head")
            and not name.endswith("layers.0")
        ):
            weights["weight"] = weights["weight"][:, :-CLASSES]
        ours.get_submodule(name).load_state_dict(weights)
    return ours, twin


def detectron2_head() -> Any:
    """Build detectron2's mask head from the config of its PointRend, with smaller layers."""
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from point_rend.config import add_pointrend_config

    config = get_cfg()
    add_pointrend_config(config)
    config.MODEL.ROI_HEADS.NUM_CLASSES = config.MODEL.POINT_HEAD.NUM_CLASSES = CLASSES
    mask = config.MODEL.ROI_MASK_HEAD
    mask.NAME, mask.FC_DIM, mask.CONV_DIM, mask.POOLER_RESOLUTION = "PointRendMaskHead", 64, CHANNELS, 14
    mask.POINT_HEAD_ON, config.MODEL.POINT_HEAD.FC_DIM = True, 32
    shapes = {name: ShapeSpec(channels=info.channels, stride=info.stride) for name, info in INFO.items()}
    return mask_head.PointRendMaskHead(config, shapes)


def detectron2_instances(boxes: Tensor, labels: Tensor, indices: Tensor, targets: Any) -> list[Any]:
    from detectron2.structures import BitMasks, Boxes, Instances

    return [
        Instances(
            SIZE, proposal_boxes=Boxes(rows), pred_boxes=Boxes(rows), gt_classes=classes, pred_classes=classes,
            gt_masks=BitMasks(target.masks[objects]),
        )
        for rows, classes, objects, target in zip(boxes, labels, indices, targets, strict=True)
    ]  # fmt: skip


def losses(monkeypatch: pytest.MonkeyPatch, config: PointRendBranchConfig = OURS):
    """Return our losses, detectron2's by our names with the same random numbers, both heads, and the features."""
    from detectron2.utils.events import EventStorage

    ours, twin = random_twins(config)
    features, boxes, labels, indices, targets = scene()
    features = {name: level.requires_grad_() for name, level in features.items()}
    seeds = torch.tensor([7, 8])  # no input of a ReLU is so near zero that rounding changes its sign
    monkeypatch.setattr("vertebra.heads.point_rend.draw_image_seeds", lambda count, device: seeds)
    found = ours.loss(
        features, samples_of(boxes, labels, indices, torch.ones_like(labels, dtype=torch.bool)), pad_to(SIZE, targets)
    )

    drawn = random_points(seeds, boxes.shape[1], OURS.point_head.num_drawn).flatten(0, 1)
    parts = (
        part.contiguous() for part in drawn.split([3 * 196, 49], dim=1)
    )  # detectron2 draws the candidates, then the uniform points
    with monkeypatch.context() as context, EventStorage():
        context.setattr(torch, "rand", lambda *size, **options: next(parts))
        theirs = twin.train()(features, detectron2_instances(boxes, labels, indices, targets))
    expected = {"loss_mask": theirs["loss_mask"], "loss_mask_points": theirs["loss_mask_point"]}
    return found, expected, ours, twin, features


def test_losses_and_gradients_equal_detectron2s(monkeypatch):
    """Oracle: both losses to 1e-5, and all gradients to 1e-4 of the largest, at points chosen among the same."""
    found, expected, ours, twin, features = losses(monkeypatch)
    assert set(found) == set(expected)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-5, atol=0, msg=name)
    sum(found.values()).backward()
    level = features["p2"].grad.clone()
    features["p2"].grad = None
    sum(expected.values()).backward()
    pairs = [
        (level, features["p2"].grad),
        (ours.convolution.weight.grad, twin.coarse_head.reduce_spatial_dim_conv.weight.grad),
        (ours.fc[0].weight.grad, twin.coarse_head.fc1.weight.grad),
        (ours.coarse_logits.weight.grad, twin.coarse_head.prediction.weight.grad),
        (ours.point_head.layers[0].weight.grad, twin.point_head.fc1.weight.grad),
        (ours.point_head.logits.weight.grad, twin.point_head.predictor.weight.grad),
    ]
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


@torch.no_grad()
def test_logits_equal_detectron2s():
    """Oracle: the coarse logits, and the logits of all classes at random points, stage by stage."""
    ours, twin = random_twins()
    features, boxes, labels, indices, targets = scene()
    instances = detectron2_instances(boxes, labels, indices, targets)
    proposals = [image.proposal_boxes for image in instances]
    coarse = ours(features, boxes)
    expected = twin.coarse_head(twin._roi_pooler(features, proposals))
    torch.testing.assert_close(coarse.flatten(0, 1), expected, rtol=1e-4, atol=1e-4)
    points = random_points(torch.tensor([1, 2]), boxes.shape[1], 50)
    logits = ours.point_logits(features, boxes, coarse, points).flatten(0, 1)
    fine = twin._point_pooler(features, proposals, points.flatten(0, 1))
    expected = twin._get_point_logits(fine, points.flatten(0, 1), expected)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert coarse.std() > 0.1 and logits.std() > 0.1


@torch.no_grad()
def masks(config: PointRendBranchConfig = OURS) -> tuple[Tensor, Tensor]:
    """Return our mask probabilities and detectron2's for the same boxes and labels."""
    ours, twin = random_twins(config)
    features, boxes, labels, indices, targets = scene()
    expected = twin.eval()(features, detectron2_instances(boxes, labels, indices, targets))
    return ours.predict(features, detections_at(boxes, labels)), torch.stack(
        [image.pred_masks[:, 0] for image in expected]
    )


def test_masks_equal_detectron2s():
    """Oracle: the subdivision ends with detectron2's 224x224 masks.

    Where two cells are equally uncertain up to rounding, one or the other is predicted anew; such cells are less than
    one in a thousand.
    """
    found, expected = masks()
    assert found.shape == expected.shape == (2, 9, 224, 224)
    assert ((found - expected).abs() > 1e-4).float().mean() < 1e-3
    assert found.std() > 0.1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"point_head": {"importance": 0.5}}, "loss_mask_points"),
        ({"point_head": {"points": 100}}, "loss_mask_points"),
        ({"point_head": {"oversampling": 1.0}}, "loss_mask_points"),
        ({"point_head": {"coarse_in_every_layer": False}}, "loss_mask_points"),
    ],
    ids=str,
)
def test_negative_control_losses(monkeypatch, changes, name):
    """Control: each convention of the training points and of the point head changed alone fails the comparison."""
    found, expected, *_ = losses(monkeypatch, OURS.replace(**changes))
    assert abs(found[name].item() / expected[name].item() - 1) > 1e-3


@pytest.mark.parametrize(
    "changes", [{"subdivision_points": 300}, {"subdivisions": 4}, {"coarse_in_every_layer": False}], ids=str
)
def test_negative_control_masks(changes):
    """Control: each convention of the subdivision changed alone fails the comparison of the masks."""
    found, expected = masks(OURS.replace(point_head=changes))
    found = F.interpolate(found, expected.shape[-2:])
    assert ((found - expected).abs() > 1e-4).float().mean() > 1e-2


def semantic_twins(config: PointRefinementConfig) -> tuple[PointRefinement, Any]:
    """Return our refinement and detectron2's semantic head with the same random point head.

    The coarse logits are given: detectron2's head reads them from the features.
    """
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from point_rend.config import add_pointrend_config
    from point_rend.semantic_seg import PointRendSemSegHead

    settings = get_cfg()
    add_pointrend_config(settings)
    settings.MODEL.SEM_SEG_HEAD.NUM_CLASSES = settings.MODEL.POINT_HEAD.NUM_CLASSES = CLASSES
    point_head = settings.MODEL.POINT_HEAD
    point_head.FC_DIM, point_head.COARSE_PRED_EACH_LAYER = 32, False
    point_head.TRAIN_NUM_POINTS, point_head.SUBDIVISION_STEPS, point_head.SUBDIVISION_NUM_POINTS = 300, 2, 700
    shapes = {name: ShapeSpec(channels=info.channels, stride=info.stride) for name, info in INFO.items()}
    twin = PointRendSemSegHead(settings, shapes)
    twin.coarse_sem_seg_head = CoarseLogits()
    ours = PointRefinement(INFO, CLASSES, config)
    generator = torch.Generator().manual_seed(0)
    names = {**{f"layers.{index}": f"fc{index + 1}" for index in range(3)}, "logits": "predictor"}
    with torch.no_grad():
        for mine, theirs in names.items():
            for parameter in twin.point_head.get_submodule(theirs).parameters():
                parameter.normal_(std=0.4, generator=generator)
            ours.point_head.get_submodule(mine).load_state_dict(twin.point_head.get_submodule(theirs).state_dict())
    return ours, twin


class CoarseLogits(nn.Module):
    """A stand-in for detectron2's semantic head, whose logits are given among the features."""

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        return features["coarse"]

    def losses(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {}


SEMANTIC = PointRefinementConfig(channels=(32, 32, 32), points=300, subdivision_points=700)


def semantic_scene() -> tuple[dict[str, Tensor], Tensor, Images, Tensor]:
    """Return the features and coarse logits of two images without padding, and their labels, a quarter ignored."""
    generator = torch.Generator().manual_seed(3)
    features = scene()[0]
    coarse = torch.randn(2, CLASSES, SIZE[0] // 4, SIZE[1] // 4, generator=generator)
    labels = torch.randint(0, CLASSES, (2, *SIZE), generator=generator)
    labels[:, : SIZE[0] // 4] = 255
    return features, coarse, Images.from_list([torch.zeros(3, *SIZE, dtype=torch.uint8)] * 2), labels


def semantic_losses(monkeypatch: pytest.MonkeyPatch, config: PointRefinementConfig = SEMANTIC) -> tuple[Tensor, Tensor]:
    """Return our loss and detectron2's with the same random numbers."""
    ours, twin = semantic_twins(config)
    features, coarse, images, labels = semantic_scene()
    seeds = torch.tensor([7, 8])
    monkeypatch.setattr("vertebra.heads.semantic.points.draw_image_seeds", lambda count, device: seeds)
    found = ours.loss(coarse, features, images, labels, None)
    drawn = random_points(seeds, 1, SEMANTIC.num_drawn)[:, 0]
    parts = (part.contiguous() for part in drawn.split([900, 75], dim=1))
    with monkeypatch.context() as context:
        context.setattr(torch, "rand", lambda *size, **options: next(parts))
        _, theirs = twin.train()({**features, "coarse": coarse}, labels)
    return found, theirs["loss_sem_seg_point"]


@torch.no_grad()
def test_semantic_loss_equals_detectron2s(monkeypatch):
    """Oracle: to 1e-5, with a quarter of the pixels ignored."""
    torch.testing.assert_close(*semantic_losses(monkeypatch), rtol=1e-5, atol=0)


@torch.no_grad()
def test_refined_semantic_logits_equal_detectron2s():
    """Oracle: the logits at four times the resolution; cells that are equally uncertain up to rounding may differ."""
    ours, twin = semantic_twins(SEMANTIC)
    features, coarse, *_ = semantic_scene()
    expected, _ = twin.eval()({**features, "coarse": coarse})
    found = ours.refine(coarse, features)
    assert found.shape == expected.shape == (2, CLASSES, *SIZE)
    assert ((found - expected).abs() > 1e-3).float().mean() < 1e-3


@torch.no_grad()
@pytest.mark.parametrize("changes", [{"importance": 0.5}, {"points": 150}, {"oversampling": 1.0}], ids=str)
def test_negative_control_semantic_loss(monkeypatch, changes):
    """Control: each convention of the training points changed alone fails the comparison of the loss."""
    found, expected = semantic_losses(monkeypatch, SEMANTIC.replace(**changes))
    assert abs(found.item() / expected.item() - 1) > 1e-3
