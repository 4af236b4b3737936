"""Changing configs: ``Config.replace`` in Python and ``--set`` on the command line."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

from vertebra.configs import load_config
from vertebra.data import ImageFolderConfig, MosaicConfig
from vertebra.engine import SGDConfig, override
from vertebra.heads import DeepLabConfig, MultiHeadConfig, RCNNConfig, SemanticFPNConfig
from vertebra.necks import NECKS, BiFPNConfig, FPNConfig
from vertebra.structures import PartConfig, UsageError

BASE = load_config("quickstart")


def test_replace_changes_nested_fields_and_keeps_the_others():
    """By hand: two fields in two groups change; all others stay."""
    changed = BASE.replace(name="mine", recipe={"batch_size": 4, "schedule": {"steps": 9}})
    assert (changed.name, changed.recipe.batch_size, changed.recipe.schedule.steps) == ("mine", 4, 9)
    assert changed.recipe.schedule.decay == "cosine" and changed.train == BASE.train
    assert BASE.recipe.batch_size == 8


def test_replace_with_a_config_uses_its_defaults():
    """By hand: a config that is given for a field is used as it is, with its own defaults."""
    assert BASE.replace(model={"neck": FPNConfig()}).model.neck == FPNConfig()
    assert BASE.replace(model={"neck": {"norm": "none"}}).model.neck == FPNConfig(channels=64, norm="none")


def test_another_type_of_part_has_its_defaults_and_another_name_keeps_the_fields():
    """By hand: BiFPN keeps no field of the FPN; another ResNet keeps the levels that were chosen."""
    assert BASE.replace(model={"neck": {"name": "bifpn"}}).model.neck == BiFPNConfig()
    backbone = BASE.replace(model={"backbone": {"name": "resnet18"}}).model.backbone
    assert (backbone.name, backbone.levels) == ("resnet18", ("c2", "c3", "c4"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"naem": "x"}, "there is no field 'naem'; did you mean 'name'?"),
        (
            {"recipe": {"schedule": {"stepps": 1}}},
            "recipe.schedule\n.*there is no field 'stepps'; did you mean 'steps'?",
        ),
        ({"recipe": {"batch_size": "many"}}, "batch_size"),
        ({"evaluation": {"patience": 2}}, "set every"),
    ],
)
def test_invalid_replace_is_refused_with_the_nearest_field(changes, message):
    """By hand: ValidationError, where pydantic's own ``model_copy`` accepts anything."""
    with pytest.raises(ValidationError, match=message.replace("?", r"\?")):
        BASE.replace(**changes)


@pytest.mark.parametrize(
    ("assignments", "path", "expected"),
    [
        (["recipe.schedule.steps=20"], "recipe.schedule.steps", 20),
        (["train.transform.short_sides=(96, 128)"], "train.transform.short_sides", (96, 128)),
        (["train.transform.short_sides=[96,128]"], "train.transform.short_sides", (96, 128)),
        (["recipe.clip_norm=null"], "recipe.clip_norm", None),
        (["recipe.clip_norm=None"], "recipe.clip_norm", None),
        (["recipe.compile=True"], "recipe.compile", True),
        (["name=2017"], "name", "2017"),
        (["name=true"], "name", "true"),
        (["name=null"], "name", "null"),
        (["recipe.optimizer.lr_multipliers.backbone=0.1"], "recipe.optimizer.lr_multipliers", {"backbone": 0.1}),
        (["recipe.optimizer.lr_multipliers.head.mask=0.1"], "recipe.optimizer.lr_multipliers", {"head.mask": 0.1}),
        (
            ["run.expected_ranges.loss_box=(0.0, 9)", "run.expected_ranges.loss_mask=[0, 8]"],
            "run.expected_ranges",
            BASE.run.expected_ranges | {"loss_box": (0.0, 9.0), "loss_mask": (0.0, 8.0)},
        ),
        (["evaluation.patience=2", "evaluation.every=5"], "evaluation.patience", 2),
        (["model.head.name=deeplab"], "model.head", DeepLabConfig()),
        (["model.head.name=deeplab", "model.head.level=c4"], "model.head", DeepLabConfig(level="c4")),
        (['model.neck={"name": "bifpn"}'], "model.neck", BiFPNConfig()),
        (["train.mix.name=mosaic", "train.mix.size=[96,96]"], "train.mix", MosaicConfig(size=(96, 96))),
    ],
)
def test_set_parses_values(assignments, path, expected):
    """docs/faults.md rows 93, 95. By hand: JSON, Python literals, strings that stay strings, new keys of dicts, and
    two changes that need each other."""
    value = override(BASE, assignments)
    for name in path.split("."):
        value = getattr(value, name)
    assert value == expected and type(value) is type(expected)


def test_set_expands_the_home_folder(monkeypatch):
    """By hand: ``~`` is expanded in a path, and not in a name."""
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("USERPROFILE", "/home/someone")
    base = BASE.replace(train={"dataset": ImageFolderConfig(root="x")})
    changed = override(base, ["train.dataset.root=~/photos", "name=~mine"])
    assert (changed.train.dataset.root, changed.name) == (Path("/home/someone/photos"), "~mine")
    changed = override(BASE, ["train.dataset.name=image_folder", "train.dataset.root=~/photos"])
    assert changed.train.dataset == ImageFolderConfig(root=Path("/home/someone/photos"))


def test_set_changes_one_of_several_heads():
    """By hand: a config in a dict keeps its other fields."""
    heads = MultiHeadConfig(heads={"boxes": RCNNConfig(), "map": SemanticFPNConfig()})
    base = BASE.replace(model={"head": heads})
    head = override(base, ["model.head.heads.map.channels=32"]).model.head
    assert head.heads == {"boxes": RCNNConfig(), "map": SemanticFPNConfig(channels=32)}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("recipe.optimiser.lr=1", "there is no field 'optimiser' in recipe: did you mean 'optimizer'?"),
        ("recipe.optimizer.lr=fast", "recipe.optimizer.lr: input should be a valid number"),
        ("recipe.seed.x=1", "seed has no fields"),
        ("model.head.name=deeplap", "there is no head named 'deeplap': did you mean 'deeplab'?"),
        ("train.dataset.root=~nobody_has_this_name/x", "there is no such home folder"),
        ("name=../elsewhere", "cannot be the name of a folder"),
        ("name=", "cannot be the name of a folder"),
        ('model.head={"name": 3}', "the name of a head is text, got 3"),
        ('recipe.optimizer={"lr": 1, "lr": 2}', "'lr' is given twice in one object"),
        ("steps", "--set needs KEY=VALUE"),
    ],
)
def test_invalid_set_is_refused_in_one_line(assignment, message):
    """docs/faults.md row 92. By hand: UsageError with the field and the nearest."""
    with pytest.raises(UsageError) as caught:
        override(BASE, [assignment])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_registry_refuses_a_config_of_another_registry():
    """Symptom: a config whose name was registered elsewhere was accepted, and failed when built."""

    class Impostor(PartConfig):
        name: Literal["fpn"] = "fpn"

    with pytest.raises(ValueError, match="the neck 'fpn' needs a FPNConfig; got a Impostor"):
        NECKS.resolve(Impostor())
    assert NECKS.resolve({"name": "fpn"}) == FPNConfig()
    with pytest.raises(ValidationError, match="optimizer"):
        BASE.replace(recipe={"optimizer": FPNConfig()})
    assert BASE.replace(recipe={"optimizer": SGDConfig()}).recipe.optimizer == SGDConfig()
