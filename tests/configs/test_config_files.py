"""Config files that users write: what a mistake in one gets."""

import importlib

import pytest

from vertebra.configs import list_configs, load_config
from vertebra.data import CocoConfig
from vertebra.tools.cli import main

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
    "other": ("CONFIG = 3\n", ": a config file defines CONFIG, an ExperimentConfig"),
    "known": (
        "from vertebra.configs import load_config\nCONFIG = load_config('quikstart')\n",
        "did you mean 'quickstart'?",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_config_file_gets_one_line(mistake, tmp_path, capsys):
    """FAULTS 92: exit code 2, the file, the line and, where a field is misspelt, the nearest."""
    text, message = MISTAKES[mistake]
    (tmp_path / "mine.py").write_text(text)
    assert main(["train", str(tmp_path / "mine.py")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert mistake == "known" or str(tmp_path / "mine.py") in error


def test_a_folder_is_no_config_file(tmp_path, capsys):
    """Exit code 2, though its name ends as a config file's does."""
    (tmp_path / "mine.py").mkdir()
    assert main(["train", str(tmp_path / "mine.py")]) == 2
    assert "there is no such config file" in capsys.readouterr().err


def test_a_mistake_in_a_file_that_a_config_imports_names_that_file(tmp_path, capsys, monkeypatch):
    """Exit code 2: the line is the other file's."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "vertebra_test_parts.py").write_text("\n\nsize = \n")
    (tmp_path / "mine.py").write_text("import vertebra_test_parts\n")
    assert main(["train", str(tmp_path / "mine.py")]) == 2
    assert "vertebra_test_parts.py:3: SyntaxError" in capsys.readouterr().err


def test_the_commands_of_official_coco_leave_out_its_boxes_without_height():
    """cocodataset/cocoapi#355: two boxes of train2017 have none, and bad data stops a run."""
    noted = 0
    for name in list_configs("*_coco"):
        dataset = load_config(name).train.dataset
        if isinstance(dataset, CocoConfig) and "tiny" not in name:
            note = importlib.import_module(f"vertebra.configs.{name}").__doc__
            assert f"tools/train.py configs/{name}.py --bad-data=skip\n" in note
            noted += 1
    assert noted >= 6
