"""Every registered backbone meets the contract of ``Backbone``; a new row of the table is tested automatically."""

import math

import pytest
import torch

from vertebra.backbones import BACKBONES, RESNETS, Backbone, create_backbone

HEIGHT, WIDTH = 65, 97  # odd at every stride
ROWS = list(RESNETS)
DEEP = {name for name, spec in RESNETS.items() if sum(spec.depths) > 30}
ONE_OF_EACH_KIND = (
    "resnet18", "resnet50", "resnet50s", "resnet26d", "seresnext26t_32x4d", "ecaresnetlight", "cifar_resnet20",
    "cifar_plain20",
)  # fmt: skip


def option_sets(name):
    """Return sets of options that together use every option once."""
    first, *_, last = levels = RESNETS[name].levels
    return [
        {"output_stride": 16, "norm": "frozen"},
        {"output_stride": 8, "levels": levels[1:], "freeze_at": 2},
        {"levels": levels[:-1], "freeze_at": len(levels)},
        {"levels": (last,), "norm": "group", "in_channels": 1},
        {"norm": "none", "drop_path": 0.2, "deformable": (last,)},
        {"norm": "sync", "deformable": (last,), "zero_init_residual": RESNETS[name].shortcut != "none"},
        {"style": "caffe", "output_stride": 16, "checkpointed": (first,)},
        {"output_stride": 8, "multi_grid": tuple(range(1, 1 + RESNETS[name].depths[-1]))},
    ]


def slow_if(condition):
    return [pytest.mark.slow] if condition else []


CASES = [
    *(pytest.param(name, {}, id=name, marks=slow_if(name in DEEP)) for name in ROWS),
    *(pytest.param(name, {"output_stride": 8}, id=f"{name}-8", marks=slow_if(name in DEEP)) for name in ROWS),
    *(
        pytest.param(name, options, id=f"{name}-{options}")
        for name in ONE_OF_EACH_KIND
        for options in option_sets(name)
    ),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_feature_info_is_true(name, options):
    """Oracle: the shapes of the tensors, for an image that no stride divides."""
    with torch.device("meta"):
        backbone = create_backbone(name, **options).eval()
        features = backbone(torch.empty(2, options.get("in_channels", 3), HEIGHT, WIDTH))
    assert isinstance(backbone, Backbone)
    assert list(features) == list(backbone.feature_info) == list(options.get("levels", RESNETS[name].levels))
    for level, info in backbone.feature_info.items():
        cells = (math.ceil(HEIGHT / info.stride), math.ceil(WIDTH / info.stride))
        assert features[level].shape == (2, info.channels, *cells), level
    assert max(info.stride for info in backbone.feature_info.values()) <= options.get("output_stride", 32)


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow_if(name in DEEP)) for name in ROWS])
def test_every_parameter_gets_a_gradient(name):
    """Oracle: autograd, from the coarsest level alone."""
    with torch.device("meta"):
        backbone = create_backbone(name)
        list(backbone(torch.empty(2, 3, HEIGHT, WIDTH)).values())[-1].sum().backward()
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", ROWS)
def test_config_round_trips_through_json(name):
    """Law: a config read back from JSON equals the one that was written; its name says which type to read."""
    config = BACKBONES[name].config(name=name)
    assert BACKBONES.resolve(config.model_dump(mode="json")) == config


def test_every_row_of_the_table_is_registered():
    """Law: every row is a name that ``create_backbone`` knows."""
    assert set(ROWS) <= set(BACKBONES)
