"""FPN against torchvision's feature pyramid with the same weights; extra levels; the default neck."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from vertebra.necks import FPN, NECKS, FPNConfig, Passthrough, SimplePyramidConfig, default_neck
from vertebra.structures import FeatureInfo, UsageError

from ..helpers.pyramids import BACKBONE, features_of

CHANNELS = 24


def torchvision_pyramid(feature_info, extra, norm="none"):
    extra_blocks = {
        "none": None,
        "pool": LastLevelMaxPool(),
        "conv": LastLevelP6P7(CHANNELS, CHANNELS),
        "conv_from_input": LastLevelP6P7(list(feature_info.values())[-1].channels, CHANNELS),
    }[extra]
    norm_layer = {"none": None, "batch": nn.BatchNorm2d, "group": lambda channels: nn.GroupNorm(8, channels)}[norm]
    channels = [info.channels for info in feature_info.values()]
    return torchvision.ops.FeaturePyramidNetwork(channels, CHANNELS, extra_blocks, norm_layer)


def copy_weights(source, target):
    """Copy weights to a network that has the same tensors under other names, in the same order in each part."""
    parts = {"inner_blocks": "lateral", "layer_blocks": "output", "extra_blocks": "extra"}
    state = source.state_dict()
    ordered = [value for part in parts for key, value in state.items() if key.startswith(part)]
    expected = [key for part in parts.values() for key in target.state_dict() if key.startswith(part)]
    target.load_state_dict(dict(zip(expected, ordered, strict=True)))


@pytest.mark.parametrize("levels", [("c2", "c3", "c4", "c5"), ("c2", "c3", "c4"), ("c3", "c4", "c5"), ("c4",)])
@pytest.mark.parametrize("extra", ["none", "pool", "conv", "conv_from_input"])
def test_fpn_equals_torchvision(levels, extra):
    """Oracle: torchvision, bit for bit, on odd sizes."""
    info = {level: BACKBONE[level] for level in levels}
    theirs = torchvision_pyramid(info, extra)
    fpn = FPN(BACKBONE, FPNConfig(channels=CHANNELS, levels=levels, extra=extra))
    copy_weights(theirs, fpn)
    features = features_of(BACKBONE)
    with torch.no_grad():
        expected = list(theirs(OrderedDict((level, features[level]) for level in levels)).values())
        pyramid = fpn(features)
    assert len(pyramid) == len(expected)
    assert all(torch.equal(ours, other) for ours, other in zip(pyramid.values(), expected, strict=True))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_fpn_with_norm_equals_torchvision(norm):
    """Oracle: torchvision with ``norm_layer``, in training mode; 24 channels make 8 groups."""
    theirs = torchvision_pyramid(BACKBONE, "conv", norm)
    fpn = FPN(BACKBONE, FPNConfig(channels=CHANNELS, extra="conv", norm=norm))
    copy_weights(theirs, fpn)
    features = features_of(BACKBONE)
    expected = list(theirs(OrderedDict(features)).values())
    assert all(torch.equal(ours, other) for ours, other in zip(fpn(features).values(), expected, strict=True))


def test_state_dict_keys_and_their_order_are_stable():
    """By hand: checkpoints identify a weight by its key, and optimizers by its position."""
    plain = FPN(BACKBONE, FPNConfig(levels=("c4", "c5"), extra="conv")).state_dict()
    parts = ("lateral.c4", "lateral.c5", "output.p4", "output.p5", "extra.first", "extra.second")
    assert list(plain) == [f"{part}.{name}" for part in parts for name in ("weight", "bias")]
    normed = FPN(BACKBONE, FPNConfig(levels=("c5",), norm="batch")).state_dict()
    assert {"lateral.c5.0.weight", "lateral.c5.1.running_mean", "output.p5.0.weight", "output.p5.1.bias"} <= set(normed)
    assert "lateral.c5.0.bias" not in normed


@torch.no_grad()
def test_activation_follows_each_convolution():
    """By hand: with one level the network is two convolutions."""
    fpn = FPN(BACKBONE, FPNConfig(channels=8, levels=("c5",), extra="none", activation="silu"))
    lateral, output = fpn.lateral["c5"][0], fpn.output["p5"][0]
    source = features_of(BACKBONE)["c5"]
    expected = F.silu(output(F.silu(lateral(source))))
    torch.testing.assert_close(fpn({"c5": source})["p5"], expected)


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ("none", ["p2", "p3", "p4", "p5"]),
        ("pool", ["p2", "p3", "p4", "p5", "p6"]),
        ("conv", ["p2", "p3", "p4", "p5", "p6", "p7"]),
        ("conv_from_input", ["p2", "p3", "p4", "p5", "p6", "p7"]),
        ("pool_from_input", ["p2", "p3", "p4", "p5", "p6", "p7"]),
    ],
)
def test_each_method_has_its_default_number_of_extra_levels(extra, names):
    """By hand: the papers' numbers; pN has a stride of 2^N."""
    info = FPN(BACKBONE, FPNConfig(extra=extra)).feature_info
    assert info == {name: FeatureInfo(256, 2 ** int(name[1:])) for name in names}


@pytest.mark.parametrize("extra", ["pool", "conv", "conv_from_input", "pool_from_input"])
@pytest.mark.parametrize("count", [1, 3, 6])
@torch.no_grad()
def test_extra_count_levels_are_made(extra, count):
    """Oracle: each level written out from the one before."""
    fpn = FPN(BACKBONE, FPNConfig(channels=8, extra=extra, extra_count=count))
    features, state = features_of(BACKBONE), fpn.state_dict()
    pyramid = fpn(features)
    assert list(pyramid) == [f"p{number}" for number in range(2, 6 + count)]
    level = features["c5"] if extra.endswith("from_input") else pyramid["p5"]
    if extra == "pool_from_input":
        level = F.conv2d(level, state["extra.project.weight"], state["extra.project.bias"])
    for number, name in enumerate(["first", "second", "third", "fourth", "fifth", "sixth"][:count]):
        if extra == "pool":
            level = level[..., ::2, ::2]
        elif extra == "pool_from_input":
            level = F.max_pool2d(level, 3, stride=2, padding=[size % 2 for size in level.shape[-2:]], ceil_mode=True)
        else:
            weight, bias = state[f"extra.{name}.weight"], state[f"extra.{name}.bias"]
            level = F.conv2d(level.relu() if number else level, weight, bias, stride=2, padding=1)
        torch.testing.assert_close(pyramid[f"p{6 + number}"], level)


def test_initial_weights_are_distributed_as_torchvisions():
    """Oracle: the largest of torchvision's weights; biases are zero."""
    torch.manual_seed(0)
    theirs, fpn = torchvision_pyramid(BACKBONE, "conv"), FPN(BACKBONE, FPNConfig(channels=CHANNELS, extra="conv"))
    largest = {key: value.abs().max() for key, value in fpn.named_parameters()}
    copy_weights(theirs, fpn)
    for key, value in fpn.named_parameters():
        assert largest[key].item() == pytest.approx(value.abs().max().item(), rel=0.1), key


def test_passthrough_changes_nothing():
    """Law: the same tensors and the same ``feature_info``."""
    features = features_of(BACKBONE)
    neck = Passthrough(BACKBONE)
    assert neck(features) is features
    assert neck.feature_info == BACKBONE


@pytest.mark.parametrize(
    ("feature_info", "config", "message"),
    [
        (
            BACKBONE | {"c5": FeatureInfo(64, 16)},
            FPNConfig(),
            "FPN needs levels that each have twice the stride of the previous; got {'c2': 4, 'c3': 8, 'c4': 16,",
        ),
        (BACKBONE, FPNConfig(levels=("c2", "c4")), "got {'c2': 4, 'c4': 16}"),
        (BACKBONE, FPNConfig(levels=("c3", "c2")), "got {'c3': 8, 'c2': 4}"),
        (BACKBONE, FPNConfig(levels=("c5", "c6")), "FPN reads levels ('c5', 'c6'), but the input has ('c2', 'c3',"),
        (BACKBONE, FPNConfig(extra="none", extra_count=2), "extra_count=2 contradicts extra='none'"),
        ({"p2": FeatureInfo(8, 4)}, FPNConfig(), "FPN reads levels c2, c3, ..., but the input has ('p2',)"),
        (
            {"c4": FeatureInfo(8, 16), "c5": FeatureInfo(8, 16)},
            FPNConfig(),
            "got {'c4': 16, 'c5': 16}: use the neck 'simple_pyramid'",
        ),
    ],
)
def test_fpn_refuses_levels_it_cannot_merge(feature_info, config, message):
    """By hand: the error says what was expected and what came."""
    with pytest.raises(ValueError) as caught:
        FPN(feature_info, config)
    assert message in str(caught.value)


def test_config_refuses_levels_that_are_not_a_backbones():
    """By hand: the output level of a neck cannot be the input of another."""
    with pytest.raises(ValueError, match="levels"):
        FPNConfig(levels=("p2",))


def info_of(**strides):
    return {level: FeatureInfo(8, stride) for level, stride in strides.items()}


@pytest.mark.parametrize(
    ("feature_info", "expected"),
    [
        (BACKBONE, FPNConfig(levels=("c2", "c3", "c4", "c5"))),
        (info_of(c1=2, c2=4, c3=8), FPNConfig(levels=("c2", "c3"))),
        (info_of(c2=4, c3=8, c4=16, c5=16), FPNConfig(levels=("c2", "c3", "c5"))),
        (info_of(c2=4, c4=16, c5=32), FPNConfig(levels=("c4", "c5"))),
        (info_of(c4=16), SimplePyramidConfig()),
        (info_of(c3=16, c4=16, c5=16), SimplePyramidConfig()),
        (info_of(c2=4, c4=16), SimplePyramidConfig()),
        (info_of(c1=2), SimplePyramidConfig()),
    ],
)
def test_every_backbone_has_a_default_neck(feature_info, expected):
    """By hand: an FPN for levels that double their stride, the simple pyramid for one resolution."""
    config = default_neck(feature_info)
    assert config == expected
    assert all(level.startswith("p") for level in NECKS.build(config, feature_info).feature_info)


def test_pyramid_without_backbone_levels_has_no_default_neck():
    """By hand: the error says what came."""
    with pytest.raises(ValueError, match=r"but the input has \('p2',\): pass a backbone's"):
        default_neck(info_of(p2=4))


def test_unknown_neck_suggests_the_nearest():
    """By hand: exit code 2 and the nearest name."""
    with pytest.raises(UsageError, match="there is no neck named 'bi_fpn': did you mean 'bifpn'") as caught:
        NECKS.resolve({"name": "bi_fpn"})
    assert caught.value.exit_code == 2
