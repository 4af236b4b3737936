"""``vertebra config``: a resolved config with notes and sources, as JSON, and as a file of the user's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

from vertebra.configs import load_config
from vertebra.data import LoaderConfig
from vertebra.engine import ExperimentConfig, RecipeConfig, override
from vertebra.heads import BoxBranchConfig
from vertebra.structures import Config
from vertebra.tools.cli import main
from vertebra.tools.config import list_fields, read_field_notes


class Base(Config):
    """A config type with a note."""

    first: int = 1
    """What comes
    first."""
    bare: int = 2


class Derived(Base):
    """A config type with notes of its own."""

    second: int = 3
    """What comes second."""
    bare: int = 4
    """No longer bare."""


def test_notes_are_the_docstrings_below_the_fields():
    """By hand: on one line, inherited, and replaced if a subclass declares the field again."""
    assert read_field_notes(Base) == {"first": "What comes first."}
    assert read_field_notes(Derived) == {
        "first": "What comes first.",
        "second": "What comes second.",
        "bare": "No longer bare.",
    }
    assert read_field_notes(RecipeConfig)["batch_size"] == "Images per step, summed over all processes."


def test_every_field_is_listed_with_its_value():
    """Law: the listed paths and values together are the config."""
    config = load_config("mask_rcnn_semantic_fpn_r10t_shapes")
    fields = list(list_fields(config, ()))
    assert len({field.path for field in fields}) == len(fields)
    for field in fields:
        value = config
        for name in field.path.split("."):
            value = value[name] if isinstance(value, dict) else getattr(value, name)
        assert value == field.value
    paths = {field.path for field in fields}
    assert {"model.head.heads.boxes.rpn.samples", "train.dataset.parts.detection.split"} <= paths


def test_every_value_says_where_it_came_from():
    """By hand: a default, the config file, and --set of a field, of a dict and of a part that was replaced."""
    assignments = ["recipe.seed=7", "model.neck.name=bifpn", 'run.expected_ranges={"loss": [0, 9]}']
    config = override(load_config("quickstart"), assignments)
    keys = [assignment.partition("=")[0] for assignment in assignments]
    sources = {field.path: field.source for field in list_fields(config, keys)}
    assert sources["name"] == sources["recipe.batch_size"] == "config file"
    assert sources["recipe.accumulate"] == sources["evaluation.batch_size"] == "default"
    assert sources["recipe.seed"] == sources["model.neck.name"] == sources["run.expected_ranges"] == "--set"
    assert sources["model.neck.channels"] == "default"


def test_config_command_prints_values_sources_and_notes(capsys):
    """By hand: three lines of it."""
    assert main(["config", "quickstart", "--set", "recipe.accumulate=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "name = 'quickstart'  # config file" in lines
    place = lines.index("recipe.accumulate = 2  # --set")
    assert lines[place + 1].startswith("    Gradient accumulation: the number")
    assert "evaluation.every = 0  # default" in lines or any(line.startswith("evaluation.every = ") for line in lines)


def test_printed_json_is_a_config_file(tmp_path, capsys):
    """Law: what is printed, read as a config, is the same experiment."""
    assert main(["config", "quickstart", "--set", "recipe.seed=7", "--json"]) == 0
    path = tmp_path / "mine.json"
    path.write_text(capsys.readouterr().out)
    assert load_config(path) == override(load_config("quickstart"), ["recipe.seed=7"])
    assert json.loads(path.read_text())["recipe"]["seed"] == 7


@pytest.mark.parametrize("name", ["quickstart", "mask_rcnn_r101_fpn_3x_coco", "plain_vs_residual_resnet20"])
def test_copied_config_is_the_same_experiment(name, tmp_path, capsys, monkeypatch):
    """Law: the file with its note, in another folder, gives an equal config."""
    monkeypatch.chdir(tmp_path)
    assert main(["config", name, "--copy", "configs/mine.py"]) == 0
    assert "train it with vertebra train configs/mine.py" in capsys.readouterr().out
    assert Path("configs/mine.py").read_text().startswith('"""')
    assert load_config("configs/mine.py") == load_config(name)


def test_copied_config_needs_no_other_file(tmp_path):
    """Law: it loads in a new process and an empty folder."""
    assert main(["config", "mask_rcnn_r101_fpn_3x_coco", "--copy", str(tmp_path / "mine.py")]) == 0
    command = [sys.executable, "-m", "vertebra.tools.cli", "config", "mine.py", "--json"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ExperimentConfig.model_validate_json(shown.stdout) == load_config("mask_rcnn_r101_fpn_3x_coco")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quickstart", "--copy", "there.py"], "there.py: this file exists already"),
        (["quickstart", "--copy", "mine.txt"], "mine.txt: a config is a Python file: give a name that ends in .py"),
        (["quickstart", "--copy", "new.py", "--set", "name=x"], "--copy copies the file unchanged"),
        (["quikstart", "--copy", "new.py"], "there is no config named 'quikstart': did you mean 'quickstart'?"),
        (["quikstart"], "there is no config named 'quikstart': did you mean 'quickstart'?"),
        (["quickstart", "--set", "recipe.sead=1"], "there is no field 'sead' in recipe: did you mean 'seed'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_failed_copy_writes_nothing(arguments, message, tmp_path, capsys, monkeypatch):
    """By hand: exit code 2 and one line; an existing file is not changed."""
    monkeypatch.chdir(tmp_path)
    Path("there.py").write_text("mine\n")
    assert main(["config", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["there.py"] and Path("there.py").read_text() == "mine\n"


def test_configs_in_a_dict_are_listed_by_key():
    """By hand: an empty dict is listed as a value."""

    class Parts(Config):
        parts: dict[str, BoxBranchConfig] = Field(default={})

    assert [field.path for field in list_fields(Parts(), ())] == ["parts"]
    paths = [field.path for field in list_fields(Parts(parts={"a": BoxBranchConfig()}), ())]
    assert paths[0].startswith("parts.a.") and set(BoxBranchConfig.model_fields) <= {
        path.split(".")[2] for path in paths
    }


def test_fields_without_notes_are_listed_too():
    """By hand: some fields of an experiment have no note, and every field of a loader has one."""
    assert "model" not in read_field_notes(ExperimentConfig)
    assert set(read_field_notes(LoaderConfig)) == set(LoaderConfig.model_fields)
