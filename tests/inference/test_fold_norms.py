"""Folding of batch norms: which norms are folded, and that nothing else changes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import vertebra
from vertebra.inference.fold_norms import fold_norms, has_fixed_statistics
from vertebra.ops import FrozenBatchNorm2d


def randomize(network: nn.Module) -> nn.Module:
    """Give every batch norm random statistics and weights, and put the network into evaluation mode."""
    torch.manual_seed(0)
    for norm in filter(has_fixed_statistics, network.eval().modules()):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_()
    return network


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10t", {}),
        ("resnet18", {"norm": "frozen"}),
        ("resnet26d", {"deformable": ("c4", "c5")}),
        ("resnet18", {"norm": "sync"}),
        ("timm/mobilenetv3_small_050", {}),
        ("timm/efficientnet_b0", {"norm": "frozen"}),
    ],
)
def test_every_norm_after_a_convolution_is_folded_without_a_change(name, options):
    """Law: no norm is left, and the feature maps agree up to rounding."""
    backbone = randomize(vertebra.create_backbone(name, **options))
    norms = sum(map(has_fixed_statistics, backbone.modules()))
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = backbone(pixels)
        assert fold_norms(backbone, lambda: backbone(pixels)) == norms > 5
        assert not any(map(has_fixed_statistics, backbone.modules()))
        for level, values in backbone(pixels).items():
            torch.testing.assert_close(values, expected[level], rtol=1e-4, atol=1e-5 * expected[level].abs().max())


def test_folded_weights_equal_torchs():
    """Oracle: ``torch.nn.utils.fusion``, for an ordinary convolution."""
    pair = randomize(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)))
    expected = fuse_conv_bn_eval(copy.deepcopy(pair[0]), copy.deepcopy(pair[1]))
    assert fold_norms(pair, lambda: pair(torch.randn(1, 3, 8, 8))) == 1
    torch.testing.assert_close(pair[0].weight, expected.weight)
    torch.testing.assert_close(pair[0].bias, expected.bias)
    assert isinstance(pair[1], nn.Identity)


@pytest.mark.parametrize(
    ("layer", "norm", "size"),
    [
        (nn.ConvTranspose2d(3, 8, 2, stride=2), nn.BatchNorm2d(8), (2, 3, 5, 5)),
        (nn.Conv2d(4, 8, 1, groups=2), FrozenBatchNorm2d(8), (2, 4, 5, 5)),
        (nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), (2, 3)),
    ],
    ids=["transposed convolution", "grouped convolution", "linear"],
)
def test_norms_after_other_layers_are_folded(layer, norm, size):
    """Law: outputs agree up to rounding."""
    pair, values = randomize(nn.Sequential(layer, norm)), torch.randn(size)
    expected = pair(values)
    assert fold_norms(pair, lambda: pair(values)) == 1
    torch.testing.assert_close(pair(values), expected, rtol=1e-4, atol=1e-5)


class Standardized(nn.Conv2d):
    """A convolution that standardizes its weights in each pass, as those of BiT do (1903.10520)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.conv2d(input, self.weight / self.weight.std(), self.bias)


class TwoReaders(nn.Module):
    """A convolution whose output is read by a norm and by something else."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.conv, self.norm, self.other_norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, values: torch.Tensor) -> object:
        hidden = self.conv(values)
        if self.mode == "sum":
            return self.norm(hidden) + hidden
        if self.mode == "returned":
            return {"normalized": self.norm(hidden), "map": [hidden]}
        if self.mode == "changed":
            return self.norm(hidden.relu_())
        if self.mode == "two norms":
            return self.norm(hidden) + self.other_norm(hidden)
        return self.norm(hidden) + self.norm(values.repeat(1, 3, 1, 1)[:, :8])


@pytest.mark.parametrize("mode", ["sum", "returned", "changed", "two norms", "norm of two inputs"])
def test_norm_is_kept_where_folding_would_change_another_value(mode):
    """By hand: the output of the convolution, or the norm, is also used elsewhere."""
    network, values = randomize(TwoReaders(mode)), torch.randn(1, 3, 4, 4)
    assert fold_norms(network, lambda: network(values)) == 0
    assert has_fixed_statistics(network.norm)


def test_norms_that_cannot_be_folded_are_kept():
    """By hand: batch statistics, a subclass of a convolution, a hook of the user, a group norm."""
    training = nn.BatchNorm2d(8, track_running_stats=False)
    hooked = nn.BatchNorm2d(8)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    values = torch.randn(2, 3, 4, 4)
    for pair in (
        nn.Sequential(nn.Conv2d(3, 8, 1), training),
        nn.Sequential(Standardized(3, 8, 1), nn.BatchNorm2d(8)),
        nn.Sequential(nn.Conv2d(3, 8, 1), hooked),
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8)),
    ):
        expected = pair.eval()(values)
        assert fold_norms(pair, lambda pair=pair: pair(values)) == 0
        assert torch.equal(pair(values), expected)


def test_shared_convolution_is_folded_once():
    """Law: a tower that is applied to several levels, as RetinaNet's, keeps its outputs."""
    tower = randomize(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)))
    levels = [torch.randn(1, 3, size, size) for size in (8, 4, 2)]
    expected = [tower(level) for level in levels]
    assert fold_norms(tower, lambda: [tower(level) for level in levels]) == 1
    for level, values in zip(levels, expected, strict=True):
        torch.testing.assert_close(tower(level), values)


def test_frozen_norms_need_no_evaluation_mode():
    """By hand: their statistics are fixed in training too; those of a batch norm are not."""
    backbone = vertebra.create_backbone("resnet10t", freeze_at=1).train()
    frozen = sum(isinstance(module, FrozenBatchNorm2d) for module in backbone.modules())
    assert sum(map(has_fixed_statistics, backbone.modules())) == frozen > 0
