"""The simple pyramid against the text of ViTDet (2203.16527 section 3), written out."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from vertebra.necks import SimplePyramid, SimplePyramidConfig
from vertebra.structures import FeatureInfo

WIDTH = 32


def normalize(x, state, key):
    """Return ``x`` after a layer norm over the channels of each cell."""
    mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, correction=0)
    weight, bias = (state[f"{key}.{name}"][:, None, None] for name in ("weight", "bias"))
    return (x - mean) / (variance + 1e-6).sqrt() * weight + bias


def enlarge(x, state, key):
    """Return a 2x2 transposed convolution of stride 2: each cell becomes four, which do not overlap."""
    weight, bias = state[f"{key}.weight"], state[f"{key}.bias"]
    finer = x.new_zeros(len(x), len(bias), 2 * x.shape[2], 2 * x.shape[3])
    for row in range(2):
        for column in range(2):
            cells = torch.einsum("bchw,co->bohw", x, weight[:, :, row, column])
            finer[..., row::2, column::2] = cells + bias[:, None, None]
    return finer


def gelu(x):
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def written_out(source, stride, state):
    """Return p2..p6 of one map."""
    pyramid = {}
    for level in ("p2", "p3", "p4", "p5"):
        x, target = source, 2 ** int(level[1])
        doublings = (stride // target).bit_length() - 1 if target < stride else 0
        for step in range(doublings):
            if step:
                x = gelu(normalize(x, state, f"scale.{level}.{3 * step - 2}"))
            x = enlarge(x, state, f"scale.{level}.{3 * step}")
        for _ in range((target // stride).bit_length() - 1 if target > stride else 0):
            x = x.unflatten(3, (-1, 2)).amax(4).unflatten(2, (-1, 2)).amax(3)
        for step, padding in enumerate((0, 1)):
            x = F.conv2d(x, state[f"output.{level}.{step}.0.weight"], padding=padding)
            x = normalize(x, state, f"output.{level}.{step}.1")
        pyramid[level] = x
    return pyramid | {"p6": pyramid["p5"][..., ::2, ::2]}


@pytest.mark.parametrize("stride", [4, 8, 16, 32, 64])
@torch.no_grad()
def test_simple_pyramid_equals_the_paper_written_out(stride):
    """Oracle: the text written out, for the paper's stride of 16 and for others."""
    torch.manual_seed(0)
    neck = SimplePyramid({"c4": FeatureInfo(WIDTH, stride)}, SimplePyramidConfig(channels=8))
    for parameter in neck.parameters():
        nn.init.normal_(parameter, std=0.5)
    source = torch.randn(2, WIDTH, 128 // stride, 192 // stride)
    pyramid, expected = neck({"c4": source}), written_out(source, stride, neck.state_dict())
    assert list(pyramid) == list(expected)
    for level in expected:
        torch.testing.assert_close(pyramid[level], expected[level], msg=lambda text, level=level: f"{level}: {text}")


def test_channels_halve_with_each_doubling_of_the_resolution():
    """Oracle: the paper's ViT-B, whose 768 channels of stride 16 become 192 at stride 4; no biases before norms."""
    neck = SimplePyramid({"c4": FeatureInfo(768, 16)})
    shapes = {key: tuple(value.shape) for key, value in neck.named_parameters()}
    assert shapes["scale.p2.0.weight"] == (768, 384, 2, 2)
    assert shapes["scale.p2.3.weight"] == (384, 192, 2, 2)
    assert shapes["output.p2.0.0.weight"] == (256, 192, 1, 1)
    assert "output.p2.0.0.bias" not in shapes
    assert neck.feature_info == {f"p{number}": FeatureInfo(256, 2**number) for number in range(2, 7)}


def test_coarsest_level_is_read_by_default():
    """By hand: the last ``c`` level unless one is named; of equal strides the last is the deepest."""
    info = {"c2": FeatureInfo(8, 4), "c3": FeatureInfo(8, 16), "c4": FeatureInfo(16, 16), "p2": FeatureInfo(8, 4)}
    assert SimplePyramid(info).levels == ("c4",)
    assert SimplePyramid(info, SimplePyramidConfig(levels=("c2",))).levels == ("c2",)


def test_strides_of_the_levels_can_be_chosen():
    """By hand: p3..p7 for a dense head, the last two by convolutions."""
    config = SimplePyramidConfig(channels=8, strides=(8, 16, 32), extra="conv")
    info = SimplePyramid({"c4": FeatureInfo(WIDTH, 16)}, config).feature_info
    assert info == {f"p{number}": FeatureInfo(8, 2**number) for number in range(3, 8)}


@pytest.mark.parametrize(
    ("feature_info", "config", "message"),
    [
        ({"c4": FeatureInfo(8, 14)}, SimplePyramidConfig(), "a patch size of 8, 16 or 32"),
        ({"p2": FeatureInfo(8, 4)}, SimplePyramidConfig(), "choose a level of the backbone in `levels`"),
        ({"c4": FeatureInfo(8, 16)}, SimplePyramidConfig(levels=("c5",)), "but the input has ('c4',)"),
    ],
)
def test_simple_pyramid_refuses_a_level_it_cannot_scale(feature_info, config, message):
    """By hand: the error says what to do."""
    with pytest.raises(ValueError) as caught:
        SimplePyramid(feature_info, config)
    assert message in str(caught.value)


@pytest.mark.parametrize("options", [{"strides": (4, 16)}, {"strides": (6, 12)}, {"levels": ("c4", "c5")}])
def test_invalid_config_is_refused(options):
    """By hand: strides that do not double, strides that are no powers of two, and two levels to read."""
    with pytest.raises(ValidationError):
        SimplePyramidConfig(**options)
