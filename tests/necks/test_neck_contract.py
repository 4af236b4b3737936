"""Every registered neck meets the contract of ``Neck``; a new neck is tested automatically."""

import json
from typing import get_args

import pytest
import torch
from torch import nn

from vertebra.necks import NECKS, Neck

from ..helpers.pyramids import BACKBONE, features_of

SIZES = [(65, 97), (64, 96)]  # the first is odd at every stride
LEVELS = [("c4",), ("c4", "c5"), ("c3", "c4", "c5"), ("c2", "c3", "c4", "c5")]
SMALL = {"channels": 16, "repeats": 2}
CHOICES = ("extra", "norm", "activation")


def build(name, levels=tuple(BACKBONE), **options):
    """Build the named neck in few channels on these levels."""
    config_type = NECKS[name].config
    small = {field: value for field, value in SMALL.items() if field in config_type.model_fields}
    feature_info = {level: BACKBONE[level] for level in levels}
    return NECKS.build(config_type(name=name, **small, **options), feature_info)


def choices(name):
    """Return the defaults, then every value of every field with a list of values, one at a time."""
    fields = NECKS[name].config.model_fields
    values = [(field, value) for field in CHOICES if field in fields for value in get_args(fields[field].annotation)]
    return [{}, *({field: value} for field, value in values)]


CASES = [pytest.param(name, options, id=f"{name}-{options}") for name in NECKS for options in choices(name)]


def checked_pyramid(neck, features, size):
    """Run the neck, check its levels against ``feature_info`` and return them."""
    pyramid = neck(features)
    assert list(pyramid) == list(neck.feature_info)
    finest = BACKBONE[neck.levels[0]].stride
    for level, info in neck.feature_info.items():
        read = max(info.stride, finest)
        cells = tuple(-(-side // read) * (read // info.stride) for side in size)
        assert pyramid[level].shape == (2, info.channels, *cells), level
    return pyramid


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", LEVELS, ids=len)
@pytest.mark.parametrize("name", list(NECKS))
def test_feature_info_is_true(name, levels, size):
    """Oracle: the shapes of the tensors. They are meta tensors, so that ``forward`` cannot read a value either."""
    neck = build(name, levels).to("meta")
    assert isinstance(neck, Neck)
    features = features_of(BACKBONE, *size)
    checked_pyramid(neck, {level: features[level].to("meta") for level in levels}, size)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_option_keeps_feature_info_and_gets_gradients(name, options):
    """Oracle: the shapes of the tensors, and autograd from all levels together."""
    torch.manual_seed(0)
    neck, features = build(name, **options), features_of(BACKBONE, *SIZES[0])
    pyramid = checked_pyramid(neck, features, SIZES[0])
    if list(neck.parameters()):
        sum((level * torch.randn_like(level)).sum() for level in pyramid.values()).backward()
    assert [key for key, value in neck.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("name", list(NECKS))
def test_levels_are_named_after_their_stride(name):
    """By hand: level pN or cN has a stride of 2^N."""
    for levels in LEVELS:
        assert all(info.stride == 2 ** int(level[1:]) for level, info in build(name, levels).feature_info.items())


@pytest.mark.parametrize("name", list(NECKS))
def test_config_round_trips_through_json(name):
    """Law: a config read back from JSON equals the one that was written; its name says which type to read."""
    for options in choices(name):
        config = NECKS[name].config(name=name, **options)
        assert NECKS.resolve(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize("name", list(NECKS))
def test_other_images_of_a_batch_change_nothing(name):
    """Law: in evaluation an image alone has the levels that it has in a batch."""
    torch.manual_seed(0)
    neck, features = build(name).eval(), features_of(BACKBONE, *SIZES[0])
    with torch.no_grad():
        together = neck(features)
        alone = neck({level: feature[:1] for level, feature in features.items()})
    for level in together:
        torch.testing.assert_close(together[level][:1], alone[level], msg=lambda text, level=level: f"{level}: {text}")


@pytest.mark.parametrize("name", list(NECKS))
def test_input_levels_are_not_modified(name):
    """Law: heads may read the backbone's levels too."""
    features = features_of(BACKBONE, *SIZES[0])
    build(name)(features)
    assert all(torch.equal(features[level], other) for level, other in features_of(BACKBONE, *SIZES[0]).items())


@pytest.mark.parametrize("name", list(NECKS))
def test_initial_weights_keep_the_variance(name):
    """Law: a convolution with weights of variance 1 / fan-in keeps the variance of its input; biases are zero."""
    torch.manual_seed(0)
    neck = build(name)
    for key, module in neck.named_modules():
        if isinstance(module, nn.Conv2d):
            spread = module.weight.std() * module.weight[0].numel() ** 0.5
            assert spread.item() == pytest.approx(1, rel=0.2), key
            assert module.bias is None or not module.bias.any(), key
    with torch.no_grad():
        spreads = {level: feature.std().item() for level, feature in neck(features_of(BACKBONE)).items()}
    assert all(0.2 < spread < 5 for spread in spreads.values()), spreads
