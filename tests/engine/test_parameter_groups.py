"""Learning rates and weight decays by parameter: against timm's parameter groups, and by hand."""

import shutil

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from vertebra.backbones import Backbone, create_backbone
from vertebra.backbones.timm_layers import extractor_parameter_name
from vertebra.engine import AdamWConfig, SGDConfig, build_optimizer, set_learning_rate, train
from vertebra.inference import checkpoint_paths
from vertebra.models import build_model
from vertebra.structures import UsageError
from vertebra.tools.cli import main

from ..helpers.runs import equal_tensors, newest_weights, read_metrics
from ..helpers.tiny import tiny_classifier


def settings(config, model) -> dict[str, tuple[float, float]]:
    """Return the learning rate and the weight decay of every parameter, as the optimizer has them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(config, model).param_groups
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]
    }


@pytest.mark.parametrize("config", [SGDConfig(lr=0.5, weight_decay=0.2), AdamWConfig(lr=0.5, weight_decay=0.2)])
def test_norms_do_not_decay_and_frozen_layers_are_left_out(config):
    """By hand: a convolution decays, a norm does not, and a frozen layer is in no group."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 2).requires_grad_(False))
    assert settings(config, model) == {
        "0.weight": (0.5, 0.2), "0.bias": (0.5, 0.2), "1.weight": (0.5, 0.0), "1.bias": (0.5, 0.0),
    }  # fmt: skip


def test_all_norm_layers_of_torch_are_recognized():
    """By hand: norms other than batch, group and layer norm; a PReLU, whose weight is one-dimensional too, is no
    norm."""
    model = nn.Sequential(nn.RMSNorm(2), nn.InstanceNorm2d(2, affine=True), nn.PReLU())
    decays = {name: decay for name, (_, decay) in settings(SGDConfig(lr=0.5, weight_decay=0.2), model).items()}
    assert decays == {"0.weight": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.2}


NORM_FILES = {"batchnorm", "normalization", "norm", "norm_act", "evo_norm", "filter_response_norm", "grn"}


@pytest.mark.parametrize(
    "name",
    [
        "aimv2_large_patch14_224", "caformer_s18", "convnextv2_atto", "dm_nfnet_f0", "levit_128", "mobilenetv5_300m",
        "resnetv2_50d_evos", "resnetv2_50d_frn", "resnetv2_50x1_bit",
    ],
)  # fmt: skip
def test_all_norm_layers_of_timm_are_recognized(name):
    """Oracle: the classes of the files in which torch and timm define norms; no other class is a norm."""
    with torch.device("meta"):
        model = timm.create_model(name)
    norms = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if NORM_FILES & {base.__module__.rpartition(".")[2] for base in type(module).__mro__}
        for name, _ in module.named_parameters(recurse=False)
    }
    actual = settings(SGDConfig(lr=0.5, weight_decay=0.2), model)
    assert {name for name, (_, decay) in actual.items() if decay == 0} == norms


def test_biases_and_patterns_set_decays_and_rates():
    """By hand: the decay of a bias, and products of multipliers; a pattern that is half a name matches nothing."""
    model = nn.ModuleDict({"trunk": nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "trunks": nn.Linear(2, 2)})
    config = AdamWConfig(
        lr=1.0,
        weight_decay=0.2,
        bias_weight_decay=0.1,
        lr_multipliers={"trunk": 0.5, "*.0.*": 0.5},
        decay_multipliers={"trunks.weight": 3, "*.bias": 0},
    )
    assert settings(config, model) == {
        "trunk.0.weight": (0.25, 0.2), "trunk.0.bias": (0.25, 0.0),
        "trunk.1.weight": (0.5, 0.0), "trunk.1.bias": (0.5, 0.0),
        "trunks.weight": (1.0, pytest.approx(0.6)), "trunks.bias": (1.0, 0.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "advice"),
    [
        ("bakbone", "did you mean 'backbone'?"),
        ("backbone.layer9", "did you mean 'layer"),
        ("head.fc.weights", "did you mean 'weight'?"),
        ("*.gamma", "known: backbone, head"),
    ],
)
def test_pattern_that_matches_no_parameter_is_refused(pattern, advice, tmp_path, capsys):
    """By hand: exit code 2 with the nearest name, since a misspelt part would train at the full rate."""
    (tmp_path / "config.json").write_text(tiny_classifier().model_dump_json())
    change = f'recipe.optimizer.lr_multipliers={{"{pattern}": 0.1}}'
    assert main(["train", str(tmp_path / "config.json"), "--set", change, "--output", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert f"no parameter has a name like '{pattern}': {advice}" in error and error.count("error:") == 1


@pytest.mark.parametrize(
    "name",
    ["test_vit", "test_vit3", "test_convnext", "test_efficientnet", "test_nfnet", "swin_tiny_patch4_window7_224"],
)
def test_layer_decay_of_a_timm_model_equals_timms(name):
    """Oracle: timm's ``param_groups_layer_decay`` of the same model, every rate and decay."""
    backbone = create_backbone(f"timm/{name}")
    config = AdamWConfig(lr=1.0, weight_decay=0.05, bias_weight_decay=0.0, layer_decay=0.75)
    actual = settings(config, backbone)
    timm_model = timm.create_model(name, **backbone.options)
    undecayed = timm_model.no_weight_decay() if hasattr(timm_model, "no_weight_decay") else ()
    names = {id(parameter): extractor_parameter_name(name, actual) for name, parameter in timm_model.named_parameters()}
    expected = {
        names[id(parameter)]: (pytest.approx(group["lr_scale"]), group["weight_decay"])
        for group in param_groups_layer_decay(timm_model, 0.05, undecayed, layer_decay=0.75)
        for parameter in group["params"]
    }
    assert actual == {name: expected[name] for name in actual}
    assert len({rate for rate, _ in actual.values()}) > 3


@pytest.mark.parametrize("name", ["resnet18", "resnet50d"])
def test_layers_of_a_resnet_equal_timms(name):
    """Oracle: timm's groups of its own model; the stem is one layer, and each block another."""
    actual = settings(SGDConfig(lr=1.0, layer_decay=0.5), create_backbone(name))
    timm_model = timm.create_model(name)
    names = {id(parameter): name for name, parameter in timm_model.named_parameters()}
    expected = {
        names[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(timm_model, layer_decay=0.5)
        for parameter in group["params"]
    }
    assert {name: rate for name, (rate, _) in actual.items()} == {name: expected[name] for name in actual}


def test_layer_decay_counts_from_the_last_built_block():
    """By hand: without c5 the last block is c4's; the head has the full rate."""
    config = tiny_classifier(recipe={"optimizer": SGDConfig(lr=1.0, layer_decay=0.5, lr_multipliers={"head": 3.0})})
    rates = settings(config.recipe.optimizer, build_model(config.model, ("a", "b")))
    assert rates["head.fc.weight"][0] == 3 and rates["backbone.layer3.0.conv1.weight"][0] == 0.5
    assert rates["backbone.layer2.0.conv1.weight"][0] == 0.25 and rates["backbone.conv1.0.weight"][0] == 0.0625


class Layerless(Backbone):
    """A backbone that does not say what its layers are."""

    config = create_backbone("resnet18").config

    def forward(self, pixels):
        return {"c2": pixels}


@pytest.mark.parametrize(
    ("backbone", "message"),
    [(Layerless, "backbone resnet18 does not define layers"), ("poolformer_s12", "timm does not define its layers")],
)
def test_layer_decay_without_layers_is_refused(backbone, message):
    """By hand: UsageError, instead of one rate for all layers."""
    model = create_backbone(f"timm/{backbone}") if isinstance(backbone, str) else backbone()
    with pytest.raises(UsageError, match=message):
        build_optimizer(SGDConfig(layer_decay=0.5), model)
    assert build_optimizer(SGDConfig(), nn.Sequential(model, nn.Linear(1, 1))).param_groups


def test_every_group_follows_the_schedule():
    """By hand: the rate of a group is the new rate times the group's multiplier, or the new rate itself without one."""
    model = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    optimizer = build_optimizer(SGDConfig(lr=1.0, lr_multipliers={"a": 0.1}), model)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.5, 0.5]


def test_layer_decay_resumes_exactly(tmp_path):
    """Law: the rates and decays of groups are restored from the checkpoint, and the run ends with the same bits."""
    rules = AdamWConfig(lr=1e-3, layer_decay=0.7, bias_weight_decay=0.0, lr_multipliers={"head": 2.0})
    config, run = tiny_classifier(recipe={"optimizer": rules}), tmp_path / "run"
    train(config, run)
    unbroken, lines = newest_weights(run), read_metrics(run)
    shutil.rmtree(checkpoint_paths(run / "checkpoints")[-1])
    train(config, run, resume=True)
    assert equal_tensors(newest_weights(run), unbroken) and read_metrics(run) == lines
    train(tiny_classifier(recipe={"optimizer": AdamWConfig(lr=1e-3)}), tmp_path / "plain")
    assert not equal_tensors(newest_weights(tmp_path / "plain"), unbroken)
