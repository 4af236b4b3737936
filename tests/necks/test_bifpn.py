"""BiFPN against the equations of EfficientDet (1911.09070 sections 3.2 and 3.3) written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vertebra.necks import BiFPN, BiFPNConfig
from vertebra.necks.layers import halve

from ..helpers.pyramids import BACKBONE, features_of

EFFICIENTDET = {level: BACKBONE[level] for level in ("c3", "c4", "c5")}


def randomize(network):
    """Fill every tensor of the state dict, so that no term of an equation is 1 or 0; some weights are negative."""
    generator = torch.Generator().manual_seed(0)
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
            if key.endswith(("running_var", ".1.weight")):
                value.copy_(value.square() + 0.5)


def padded_max(fine):
    """Return TensorFlow's "SAME" 3x3 max pooling of stride 2, computed window by window."""
    starts, counts = [], []
    for size in fine.shape[-2:]:
        count = (size + 1) // 2
        starts.append(max((count - 1) * 2 + 3 - size, 0) // 2)
        counts.append(count)
    rows = []
    for y in range(counts[0]):
        top = 2 * y - starts[0]
        lefts = [2 * x - starts[1] for x in range(counts[1])]
        windows = [fine[..., max(top, 0) : top + 3, max(left, 0) : left + 3] for left in lefts]
        rows.append(torch.stack([window.amax((-2, -1)) for window in windows], dim=-1))
    return torch.stack(rows, dim=-2)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (7, 8), (8, 7), (9, 5)])
def test_halving_pads_as_tensorflow_does(size):
    """Oracle: a slow loop over the windows by TensorFlow's definition."""
    fine = torch.randn(2, 3, *size)
    assert torch.equal(halve(fine), padded_max(fine))


class WrittenOut:
    """The paper's equations with the weights of a state dict."""

    def __init__(self, state):
        self.state = state

    def convolve(self, x, key):
        """Return a 1x1 convolution of ``x`` and its batch norm."""
        weight, bias, mean, variance = (
            self.state[f"{key}.1.{name}"][:, None, None] for name in ("weight", "bias", "running_mean", "running_var")
        )
        return (F.conv2d(x, self.state[f"{key}.0.weight"]) - mean) / (variance + 1e-3).sqrt() * weight + bias

    def fuse(self, key, *maps):
        """Return the sum of w_i I_i / (0.0001 + sum of w_i) after swish and a separable convolution."""
        weights = [max(weight, 0.0) for weight in self.state[f"{key}.weights"].tolist()]
        fused = sum(weight * feature for weight, feature in zip(weights, maps, strict=True)) / (1e-4 + sum(weights))
        depthwise = self.state[f"{key}.depthwise.weight"]
        deep = F.conv2d(fused * torch.sigmoid(fused), depthwise, padding=1, groups=len(depthwise))
        return self.convolve(deep, f"{key}.pointwise")

    def layer(self, key, p3, p4, p5, p6, p7):
        """Return the output nodes of Figure 2d."""
        t6 = self.fuse(f"{key}.down.p6", p6, enlarge(p7, p6))
        t5 = self.fuse(f"{key}.down.p5", p5, enlarge(t6, p5))
        t4 = self.fuse(f"{key}.down.p4", p4, enlarge(t5, p4))
        o3 = self.fuse(f"{key}.down.p3", p3, enlarge(t4, p3))
        o4 = self.fuse(f"{key}.up.p4", p4, t4, padded_max(o3))
        o5 = self.fuse(f"{key}.up.p5", p5, t5, padded_max(o4))
        o6 = self.fuse(f"{key}.up.p6", p6, t6, padded_max(o5))
        o7 = self.fuse(f"{key}.up.p7", p7, padded_max(o6))
        return o3, o4, o5, o6, o7


def enlarge(coarse, fine):
    """Repeat every cell two by two, cut to the size of the finer map."""
    rows, columns = (torch.arange(size) // 2 for size in fine.shape[-2:])
    return coarse[..., rows, :][..., columns]


@torch.no_grad()
def test_bifpn_equals_the_paper_written_out():
    """Oracle: the equations above, in evaluation mode, on odd sizes."""
    bifpn = BiFPN(EFFICIENTDET, BiFPNConfig(channels=8, repeats=2)).eval()
    randomize(bifpn)
    features = features_of(EFFICIENTDET)
    paper = WrittenOut(bifpn.state_dict())
    levels = [paper.convolve(features[level], f"lateral.{level}") for level in EFFICIENTDET]
    levels.append(padded_max(paper.convolve(features["c5"], "extra.project")))
    levels.append(padded_max(levels[-1]))
    for step in range(2):
        levels = paper.layer(f"layers.{step}", *levels)
    for (level, ours), expected in zip(bifpn(features).items(), levels, strict=True):
        torch.testing.assert_close(ours, expected, msg=lambda text, level=level: f"{level}: {text}")


def test_defaults_are_those_of_efficientdet_d0():
    """Oracle: Table 1, three layers of 64 channels on p3..p7; fusion weights are equal at the start."""
    bifpn = BiFPN(EFFICIENTDET)
    assert [(level, info.channels) for level, info in bifpn.feature_info.items()] == [
        (f"p{number}", 64) for number in range(3, 8)
    ]
    assert len(bifpn.layers) == 3
    weights = [value for key, value in bifpn.named_parameters() if key.endswith("weights")]
    assert len(weights) == 3 * 8 and all(value.eq(1).all() for value in weights)


def test_single_level_passes_its_lateral_convolution_only():
    """Law: with one level there is nothing to fuse."""
    config = BiFPNConfig(channels=8, levels=("c5",), extra="none", norm="none")
    bifpn, features = BiFPN(BACKBONE, config), features_of(BACKBONE)
    lateral = bifpn.lateral["c5"]
    assert isinstance(lateral, nn.Conv2d)
    assert torch.equal(bifpn(features)["p5"], lateral(features["c5"]))
