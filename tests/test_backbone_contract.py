"""Every registered backbone keeps the promises of ``Backbone``: a new one is tested by existing."""

import math

import pytest
import torch

from vertebra.backbones import Backbone, backbones, create_backbone

HEIGHT, WIDTH = 65, 97  # odd at every stride
DEEP = {name for name in backbones if "101" in name or "152" in name}
OPTIONS = [
    {},
    {"output_stride": 16, "norm": "frozen"},
    {"output_stride": 8, "levels": ("c3", "c5"), "freeze_at": 2},
    {"levels": ("c2", "c3", "c4"), "freeze_at": 4},
]


def slow_if(condition):
    return [pytest.mark.slow] if condition else []


CASES = [
    pytest.param(name, options, id=f"{name}-{options}", marks=slow_if(name in DEEP and options))
    for name in backbones
    for options in OPTIONS
    if set(options) <= set(backbones[name].config.model_fields)
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_feature_info_is_true(name, options):
    """Oracle: the tensors themselves, on sizes that no stride divides."""
    with torch.device("meta"):
        backbone = create_backbone(name, **options).eval()
        features = backbone(torch.empty(2, 3, HEIGHT, WIDTH))
    assert isinstance(backbone, Backbone)
    assert list(features) == list(backbone.feature_info) == list(options.get("levels", features))
    for level, info in backbone.feature_info.items():
        cells = (math.ceil(HEIGHT / info.stride), math.ceil(WIDTH / info.stride))
        assert features[level].shape == (2, info.channels, *cells), level
    assert max(info.stride for info in backbone.feature_info.values()) <= options.get("output_stride", 32)


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow_if(name in DEEP)) for name in backbones])
def test_gradient_reaches_every_parameter(name):
    """Oracle: autograd's own graph, from the coarsest level alone."""
    with torch.device("meta"):
        backbone = create_backbone(name)
        list(backbone(torch.empty(2, 3, HEIGHT, WIDTH)).values())[-1].sum().backward()
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", list(backbones))
def test_a_config_survives_its_own_json(name):
    """Law: reading back what was written changes nothing, and the name alone says which type to read it as."""
    config = backbones[name].config(name=name)
    assert backbones.resolve(config.model_dump(mode="json")) == config
