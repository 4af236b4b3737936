"""Training of Faster R-CNN against torchvision's: equal initial weights, and equal weights after several steps."""

import pytest
import torch
from torch import nn, optim
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from vertebra.engine import SGDConfig
from vertebra.engine.optim.optimizers import build_optimizer
from vertebra.heads import TORCHVISION, BoxBranch, BoxBranchConfig, RCNNConfig
from vertebra.models import from_torchvision_detector
from vertebra.ops import total_loss
from vertebra.structures import FeatureInfo, Instances

from ..helpers.reference_detector import (
    CONVENTIONS,
    random_images,
    replace_in_branch,
    torchvision_detector,
    vertebra_detector,
)

SIZES = [(96, 128), (90, 100)]
STEPS, PROPOSALS = 5, 30
BOXES = torch.tensor([[5.3, 10.1, 50.7, 61.2], [30.9, 20.4, 95.2, 86.6], [59.6, 4.8, 99.1, 39.7]])
LABELS = torch.tensor([1, 4, 6])
ALL = 10**6
"""More than there are anchors or proposals: all are sampled, so nothing is random."""


def train_both(config: RCNNConfig) -> tuple[dict, dict, dict, dict]:
    """Return weights and momenta of torchvision's detector, then those of Vertebra's, after the steps, by our names."""
    reference = torchvision_detector()
    with torch.no_grad():  # moderate outputs, so that rounding decides about no proposal
        reference.rpn.head.bbox_pred.weight.mul_(0.1)
        reference.roi_heads.box_predictor.cls_score.weight.mul_(0.1)
    reference.rpn._pre_nms_top_n["training"] = reference.rpn._post_nms_top_n["training"] = PROPOSALS
    config = replace_in_branch(config, "rpn", samples=ALL, pre_nms=(PROPOSALS,) * 2, post_nms=(PROPOSALS,) * 2)
    model = vertebra_detector(reference, replace_in_branch(config, "box", samples=ALL)).train()
    reference.rpn.fg_bg_sampler.batch_size_per_image = reference.roi_heads.fg_bg_sampler.batch_size_per_image = ALL
    reference.train()
    rates = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 1e-2}
    theirs, ours = optim.SGD(reference.parameters(), **rates), build_optimizer(SGDConfig(**rates), model)
    for step in range(STEPS):
        pixels, images = random_images(SIZES, seed=step)
        take_step(theirs, reference(pixels, [{"boxes": BOXES, "labels": LABELS + 1}] * len(SIZES)))
        take_step(ours, model(images, [Instances(BOXES, LABELS)] * len(SIZES)))
    return (
        from_torchvision_detector({name: weight.detach() for name, weight in reference.named_parameters()}),
        from_torchvision_detector(momenta_of(theirs, reference)),
        {name: weight.detach() for name, weight in model.named_parameters()},
        momenta_of(ours, model),
    )


def take_step(optimizer: optim.Optimizer, outputs: dict[str, torch.Tensor]) -> None:
    """Minimize the sum of the losses by one step."""
    optimizer.zero_grad()
    total_loss(outputs).backward()
    optimizer.step()


def momenta_of(optimizer: optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the momentum of every parameter by its name."""
    return {name: optimizer.state[weight]["momentum_buffer"] for name, weight in model.named_parameters()}


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Return the largest distance of two tensors of the same name, relative to the norm of the first."""
    assert set(first) == set(second)
    return max(float((first[name] - second[name]).norm() / first[name].norm()) for name in first)


def test_training_equals_torchvisions():
    """Oracle: torchvision's detector, trained by torch's SGD on the same images: after five steps every weight and
    every momentum of backbone, neck and head."""
    weights, momenta, our_weights, our_momenta = train_both(CONVENTIONS)
    assert largest_difference(weights, our_weights) < 1e-5
    assert largest_difference(momenta, our_momenta) < 1e-4


@pytest.mark.parametrize(
    ("branch", "values"),
    [("rpn", {"normalizer": "fixed"}), ("box", {"beta": 0.0})],
    ids=["normalizer of the RPN", "beta of the box branch"],
)
def test_negative_control_training(branch, values):
    """Control: with one convention of the losses changed, the momenta differ by over a hundred times the tolerance."""
    _, momenta, _, our_momenta = train_both(replace_in_branch(CONVENTIONS, branch, **values))
    assert largest_difference(momenta, our_momenta) > 1e-2


def box_branch(config: BoxBranchConfig) -> BoxBranch:
    """Return a new box branch for 7 classes and levels of 8 channels."""
    torch.manual_seed(3)
    return BoxBranch({"p2": FeatureInfo(8, 4), "p3": FeatureInfo(8, 8)}, 7, config.replace(fc=(32, 32)))


def test_initial_weights_equal_torchvisions():
    """Oracle: torchvision's TwoMLPHead and FastRCNNPredictor after the same seed: bit-equal weights and biases."""
    branch = box_branch(TORCHVISION.box)
    torch.manual_seed(3)
    hidden, predictor = TwoMLPHead(8 * 7 * 7, 32), FastRCNNPredictor(32, 8)
    layers = zip(
        (*branch.fc, branch.class_logits, branch.box_offsets),
        (hidden.fc6, hidden.fc7, predictor.cls_score, predictor.bbox_pred),
        strict=True,
    )
    for ours, theirs in layers:
        assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


def test_default_initial_weights_are_detectron2s():
    """By hand: normal outputs with standard deviations of 0.01 and 0.001, layers uniform within sqrt(3 / inputs)."""
    branch = box_branch(BoxBranchConfig())
    assert branch.class_logits.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert branch.box_offsets.weight.std().item() == pytest.approx(0.001, rel=0.2)
    for layer, inputs in zip(branch.fc, (8 * 7 * 7, 32), strict=True):
        assert layer.weight.abs().max().item() == pytest.approx((3 / inputs) ** 0.5, rel=0.05)
    for layer in (*branch.fc, branch.class_logits, branch.box_offsets):
        assert not layer.bias.any()
