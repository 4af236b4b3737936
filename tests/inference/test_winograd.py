"""Winograd's convolution: the values of a direct one, and where it is used.

The transforms are compiled only in the slow tests, since functions whose shapes are checked do not compile.
"""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vertebra.inference import winograd
from vertebra.inference.winograd import WinogradConv2d, replace_convolutions


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """Leave out compilation."""
    monkeypatch.setattr(winograd, "_compiled", lambda function: function)


@pytest.mark.parametrize(
    ("batch", "size", "bias"),
    [(1, (28, 32), True), (2, (31, 45), True), (1, (33, 30), False), (1, (5, 200), True), (1, (130, 50), True)],
)
def test_convolution_equals_a_direct_one(batch, size, bias):
    """Oracle: torch's convolution in float64; sides that are no multiples of a tile, and maps of several bands."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(12, 7, 3, padding=1, bias=bias).requires_grad_(False)
    values = torch.randn(batch, 12, *size)
    result = WinogradConv2d(convolution)(values)
    bias_values = None if convolution.bias is None else convolution.bias.double()
    expected = F.conv2d(values.double(), convolution.weight.double(), bias_values, padding=1)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert (result - expected).abs().max() < 2e-5 * expected.abs().max()


def test_small_maps_are_convolved_directly():
    """Law: the bits of torch's convolution."""
    convolution = nn.Conv2d(8, 8, 3, padding=1).requires_grad_(False)
    values = torch.randn(1, 8, 20, 20).to(memory_format=torch.channels_last)
    assert torch.equal(WinogradConv2d(convolution)(values), convolution(values))


def test_shapes_and_strides_are_known_without_computing():
    """Oracle: torch's own check of an operator, which compilation relies on."""
    convolution = WinogradConv2d(nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False))
    arguments = (torch.randn(1, 8, 32, 40), convolution.transformed, convolution.weight, convolution.bias)
    torch.library.opcheck(torch.ops.vertebra.winograd.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_only_suitable_convolutions_are_replaced():
    """By hand: 3x3, stride 1, one group, padded with zeros, 128 to 256 channels; a subclass is another convolution."""

    class Other(nn.Conv2d):
        """A convolution that may compute something else."""

    options = {"kernel_size": 3, "padding": 1}
    network = nn.Sequential(
        nn.Conv2d(128, 256, **options),
        nn.Conv2d(64, 128, **options),
        nn.Conv2d(512, 512, **options),
        nn.Conv2d(128, 128, **options, stride=2),
        nn.Conv2d(128, 128, 3, padding=2, dilation=2),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 128, **options, groups=32),
        nn.Conv2d(128, 128, **options, padding_mode="reflect"),
        nn.Conv2d(128, 128, 1),
        nn.Conv2d(128, 128, **options).bfloat16(),
        Other(128, 128, **options),
        nn.ModuleDict({"inside": nn.Conv2d(128, 128, **options)}),
    ).requires_grad_(False)
    assert replace_convolutions(network) == 2
    replaced = [name for name, module in network.named_modules() if isinstance(module, WinogradConv2d)]
    assert replaced == ["0", "11.inside"]


COMPILED = """
import torch, vertebra
from vertebra.structures import Images
torch.manual_seed(0)
backbone = vertebra.create_backbone("resnet18")
neck = vertebra.FPN(backbone.feature_info)
model = vertebra.Model(backbone, neck, vertebra.RCNNHead(neck.feature_info, 3))
fast = vertebra.optimize_for_inference(model, "fp32", check=False)
model.eval()
for size in ((256, 320), (300, 260)):
    images = Images.from_list([torch.randint(0, 256, (3, *size), dtype=torch.uint8)])
    with torch.no_grad():
        for name, values in model.features(images).items():
            error = (fast.features(images)[name] - values).abs().max() / values.abs().max()
            assert error < 2e-5, (name, error)
"""


@pytest.mark.slow
def test_compiled_model_with_winograd_convolutions_has_the_same_features():
    """Law: feature maps agree up to rounding for two sizes."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "convolutions by Winograd's method; backbone, neck, head.rpn compiled" in done.stdout
