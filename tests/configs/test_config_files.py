"""Config files that users write, and what happens if one has a mistake."""

import shutil

import pytest

from vertebra.configs import find_shipped_config, list_configs, load_config
from vertebra.structures import UsageError
from vertebra.tools.cli import main

VALID = """
from vertebra.configs import load_config
from vertebra.engine import ScheduleConfig

CONFIG = load_config("quickstart").replace(recipe={"schedule": ScheduleConfig(steps=9, warmup_steps=1)})
"""

MISTAKES = {
    "field": (
        "from vertebra.engine import SGDConfig\n\nCONFIG = SGDConfig(lrr=1)\n",
        ":3: there is no field 'lrr'; did you mean 'lr'?",
    ),
    "value": (
        "from vertebra.engine import ScheduleConfig\nCONFIG = ScheduleConfig(steps=0)\n",
        ":2: steps: input should be greater than 0, got 0",
    ),
    "deep": (
        "from vertebra.engine import SGDConfig\n\n\ndef make():\n    return SGDConfig(lr=-1)\n\n\nCONFIG = make()\n",
        ":5: lr: input should be greater than 0, got -1",
    ),
    "syntax": ("CONFIG = (\n", ":1: SyntaxError: '(' was never closed"),
    "import": ("import json\nimport no_such_package\n", ":2: ModuleNotFoundError: No module named 'no_such_package'"),
    "file": ("open('/nowhere/x')\n", ":1: FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/x'"),
    "name": ("CONFIG = lr\n", ":1: NameError: name 'lr' is not defined"),
    "other": ("CONFIG = 3\n", ": a config file must define CONFIG, an ExperimentConfig"),
    "known": (
        "from vertebra.configs import load_config\nCONFIG = load_config('quikstart')\n",
        "did you mean 'quickstart'?",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_config_file_is_one_line(mistake, tmp_path, capsys):
    """docs/faults.md rows 92, 94. By hand: exit code 2, the file, the line and, for a misspelt field, the nearest."""
    text, message = MISTAKES[mistake]
    (tmp_path / "mine.py").write_text(text)
    assert main(["train", str(tmp_path / "mine.py")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert mistake == "known" or str(tmp_path / "mine.py") in error


def test_field_given_twice_is_refused(tmp_path, capsys):
    """docs/faults.md row 94. By hand: exit code 2, naming the field, in a JSON config and in assignments."""
    (tmp_path / "mine.json").write_text('{"name": "a", "recipe": {"seed": 1, "seed": 2}}')
    assert main(["train", str(tmp_path / "mine.json")]) == 2
    assert "mine.json: cannot be read: 'seed' is given twice in one object" in capsys.readouterr().err
    assert main(["config", "quickstart", "--set", "recipe.seed=1", "--set", "recipe.seed=2"]) == 2
    assert "--set: recipe.seed is set twice" in capsys.readouterr().err


def test_folder_named_like_a_config_file_is_refused(tmp_path, capsys):
    """By hand: exit code 2."""
    (tmp_path / "mine.py").mkdir()
    assert main(["train", str(tmp_path / "mine.py")]) == 2
    assert "there is no such config file" in capsys.readouterr().err


def test_mistake_in_an_imported_file_names_that_file(tmp_path, capsys, monkeypatch):
    """By hand: exit code 2, with the line of the imported file."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "vertebra_test_parts.py").write_text("\n\nsize = \n")
    (tmp_path / "mine.py").write_text("import vertebra_test_parts\n")
    assert main(["train", str(tmp_path / "mine.py")]) == 2
    assert "vertebra_test_parts.py:3: SyntaxError" in capsys.readouterr().err


def test_coco_configs_skip_bad_data():
    """By hand: two boxes of train2017 have no height (cocodataset/cocoapi#355); with bad_data=error they would stop
    the run."""
    names = [name for name in list_configs("*_coco*") if "tiny" not in name]
    assert len(names) >= 8
    for name in names:
        config = load_config(name)
        assert (config.train.bad_data, config.val.bad_data) == ("skip", "error"), name


def test_config_file_can_import_a_module_beside_it(tmp_path, monkeypatch):
    """Law: as for a script, from any working folder; also if the file has the name of a module of Python's."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "sibling_of_config.py").write_text("STEPS = 7\n")
    text = "from sibling_of_config import STEPS\n" + VALID.replace("steps=9", "steps=STEPS")
    for name in ("mine_with_sibling.py", "random.py"):
        (folder / name).write_text(text)
        monkeypatch.chdir(tmp_path)
        assert load_config(folder / name).recipe.schedule.steps == 7


def test_config_file_can_define_dataclasses_with_postponed_annotations(tmp_path):
    """Symptom: ``from __future__ import annotations`` with a dataclass in a config file raised an AttributeError."""
    header = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    body = "\n@dataclass\nclass Sizes:\n    steps: int = 9\n"
    (tmp_path / "postponed.py").write_text(header + VALID.replace("CONFIG", f"{body}\nCONFIG"))
    assert load_config(tmp_path / "postponed.py").recipe.schedule.steps == 9


def test_changed_config_file_is_read_again(tmp_path):
    """Law: a second load returns the current content."""
    (tmp_path / "edited.py").write_text(VALID)
    load_config(tmp_path / "edited.py")
    (tmp_path / "edited.py").write_text(VALID.replace("steps=9", "steps=11"))
    assert load_config(tmp_path / "edited.py").recipe.schedule.steps == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('{"batch_sise": 4}', "recipe: there is no field 'batch_sise'; did you mean 'batch_size'?"),
        ('{"batch_size": -1}', "batch_size: input should be greater than 0, got -1"),
        ('{"schedule": 3}', "schedule"),
    ],
)
def test_unvalidated_fields_are_checked_when_loaded(change, message, tmp_path):
    """Symptom: fields set by ``model_copy(update=...)`` were never validated and trained with silently."""
    unchecked = f"CONFIG = CONFIG.model_copy(update={{'recipe': CONFIG.recipe.model_copy(update={change})}})\n"
    (tmp_path / "unchecked.py").write_text(VALID + unchecked)
    with pytest.raises(UsageError) as caught:
        load_config(tmp_path / "unchecked.py")
    assert message.partition(": ")[2] in str(caught.value) and "unchecked.py" in str(caught.value)


@pytest.mark.parametrize("name", list_configs())
def test_copy_of_a_shipped_config_runs_from_any_folder(name, tmp_path):
    """Law: a copy of a shipped config in an empty folder defines the same experiment."""
    copy = shutil.copy(find_shipped_config(name), tmp_path / f"copy_of_{name}.py")
    assert load_config(copy) == load_config(name)
