"""Necks against torchvision's feature pyramid, same weights."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from vertebra.necks import FPN, FPNConfig, Passthrough, necks
from vertebra.structures import FeatureInfo

BACKBONE = {
    "c2": FeatureInfo(8, 4),
    "c3": FeatureInfo(16, 8),
    "c4": FeatureInfo(32, 16),
    "c5": FeatureInfo(64, 32),
}
CHANNELS = 24


def features_of(feature_info, height=161, width=227):
    generator = torch.Generator().manual_seed(0)
    return {
        level: torch.randn(2, info.channels, -(-height // info.stride), -(-width // info.stride), generator=generator)
        for level, info in feature_info.items()
    }


def torchvisions(feature_info, extra, norm="none"):
    extra_blocks = {
        "none": None,
        "pool": LastLevelMaxPool(),
        "conv": LastLevelP6P7(CHANNELS, CHANNELS),
        "conv_from_input": LastLevelP6P7(list(feature_info.values())[-1].channels, CHANNELS),
    }[extra]
    norm_layer = nn.BatchNorm2d if norm == "batch" else None
    channels = [info.channels for info in feature_info.values()]
    return torchvision.ops.FeaturePyramidNetwork(channels, CHANNELS, extra_blocks, norm_layer)


def copy_weights(source, target):
    """The two networks hold the same tensors under other names, in the same order within each kind."""
    kinds = {"inner_blocks": "lateral", "layer_blocks": "output", "extra_blocks": "extra"}
    state = source.state_dict()
    ordered = [value for kind in kinds for key, value in state.items() if key.startswith(kind)]
    expected = [key for kind in kinds.values() for key in target.state_dict() if key.startswith(kind)]
    target.load_state_dict(dict(zip(expected, ordered, strict=True)))


@pytest.mark.parametrize("levels", [("c2", "c3", "c4", "c5"), ("c2", "c3", "c4"), ("c3", "c4", "c5"), ("c4",)])
@pytest.mark.parametrize("extra", ["none", "pool", "conv", "conv_from_input"])
def test_fpn_equals_torchvision(levels, extra):
    """Oracle: torchvision, bit for bit, on odd sizes."""
    info = {level: BACKBONE[level] for level in levels}
    theirs = torchvisions(info, extra)
    fpn = FPN(BACKBONE, FPNConfig(channels=CHANNELS, levels=levels, extra=extra))
    copy_weights(theirs, fpn)
    features = features_of(BACKBONE)
    with torch.no_grad():
        expected = list(theirs(OrderedDict((level, features[level]) for level in levels)).values())
        pyramid = fpn(features)
    assert len(pyramid) == len(expected)
    assert all(torch.equal(ours, other) for ours, other in zip(pyramid.values(), expected, strict=True))


def test_fpn_with_batch_norm_equals_torchvision():
    """Oracle: torchvision with ``norm_layer``, in training mode."""
    theirs = torchvisions(BACKBONE, "conv", norm="batch")
    fpn = FPN(BACKBONE, FPNConfig(channels=CHANNELS, extra="conv", norm="batch"))
    copy_weights(theirs, fpn)
    features = features_of(BACKBONE)
    expected = list(theirs(OrderedDict(features)).values())
    assert all(torch.equal(ours, other) for ours, other in zip(fpn(features).values(), expected, strict=True))


@pytest.mark.parametrize("size", [(65, 97), (33, 31), (256, 320)])
@pytest.mark.parametrize("extra", ["none", "pool", "conv", "conv_from_input"])
@pytest.mark.parametrize("name", list(necks))
def test_feature_info_is_true(name, extra, size):
    """Oracle: the tensors themselves. A new neck is tested by existing."""
    config_type = necks[name].config
    options = {"extra": extra} if "extra" in config_type.model_fields else {}
    neck = necks.build(config_type(name=name, **options), BACKBONE)
    pyramid = neck(features_of(BACKBONE, *size))
    assert list(pyramid) == list(neck.feature_info)
    for level, info in neck.feature_info.items():
        cells = tuple(-(-side // info.stride) for side in size)
        assert pyramid[level].shape == (2, info.channels, *cells), level


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ("none", ["p2", "p3", "p4", "p5"]),
        ("pool", ["p2", "p3", "p4", "p5", "p6"]),
        ("conv", ["p2", "p3", "p4", "p5", "p6", "p7"]),
    ],
)
def test_levels_are_named_after_their_stride(extra, names):
    """Hand-drawn: pN has stride 2 to the N."""
    info = FPN(BACKBONE, FPNConfig(extra=extra)).feature_info
    assert info == {name: FeatureInfo(256, 2 ** int(name[1:])) for name in names}


@pytest.mark.parametrize("extra", ["none", "pool", "conv", "conv_from_input"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_gradient_reaches_every_parameter(extra, norm):
    """Oracle: autograd, of all levels together."""
    fpn = FPN(BACKBONE, FPNConfig(channels=8, extra=extra, norm=norm))
    sum(level.square().sum() for level in fpn(features_of(BACKBONE)).values()).backward()
    for key, parameter in fpn.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0 or key.endswith(".0.bias"), key


def test_initial_weights_are_torchvisions():
    """Oracle: the spread of torchvision's weights; biases are zero."""
    torch.manual_seed(0)
    theirs, fpn = torchvisions(BACKBONE, "conv"), FPN(BACKBONE, FPNConfig(channels=CHANNELS, extra="conv"))
    spread = {key: value.abs().max() for key, value in fpn.named_parameters()}
    copy_weights(theirs, fpn)
    for key, value in fpn.named_parameters():
        assert spread[key].item() == pytest.approx(value.abs().max().item(), rel=0.1), key


def test_passthrough_changes_nothing():
    """Law: the same tensors, the same promise."""
    features = features_of(BACKBONE)
    neck = Passthrough(BACKBONE)
    assert neck(features) is features
    assert neck.feature_info == BACKBONE


@pytest.mark.parametrize(
    ("feature_info", "config", "said"),
    [
        (
            BACKBONE | {"c5": FeatureInfo(64, 16)},
            FPNConfig(),
            "FPN needs each level to halve the one before; got strides {'c2': 4, 'c3': 8, 'c4': 16, 'c5': 16}",
        ),
        (BACKBONE, FPNConfig(levels=("c2", "c4")), "got strides {'c2': 4, 'c4': 16}"),
        (BACKBONE, FPNConfig(levels=("c3", "c2")), "got strides {'c3': 8, 'c2': 4}"),
        (BACKBONE, FPNConfig(levels=("c5", "c6")), "FPN reads levels ('c5', 'c6'); the pyramid has ('c2', 'c3',"),
        ({"p2": FeatureInfo(8, 4)}, FPNConfig(), "FPN reads levels c2, c3, ...; the pyramid has ('p2',)"),
    ],
)
def test_fpn_refuses_what_it_cannot_merge(feature_info, config, said):
    """Hand-drawn: the text says what was wanted and what came."""
    with pytest.raises(ValueError) as caught:
        FPN(feature_info, config)
    assert said in str(caught.value)


def test_a_level_that_is_no_backbones_is_refused_by_the_config():
    """Hand-drawn: an output of a neck is not an input of one."""
    with pytest.raises(ValueError, match="levels"):
        FPNConfig(levels=("p2",))
