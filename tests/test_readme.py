"""README and the pages that continue it: their Python blocks run."""

import re
import shutil
from pathlib import Path

import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from vertebra.backbones import RESNETS
from vertebra.engine import train
from vertebra.tools.cli import main

from .helpers.tiny import tiny_config

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = (README, ROOT / "docs" / "data.md", ROOT / "docs" / "extending.md")
"""The pages with Python blocks, in the order in which a reader meets them."""


def test_readme_snippets_run_in_order(shapes, tmp_path, monkeypatch, capsys):
    """Law: every Python block runs, in one namespace, as if a reader typed them.

    A tiny run takes the place of the quickstart's, generated shapes that of the reader's own data, random weights that
    of a detector trained with torchvision, and trainings are short.
    """
    train(tiny_config(shapes), tmp_path / "runs" / "quickstart")
    write_own_data(shapes, tmp_path / "mine")
    own_weights = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4).state_dict()
    torch.save(own_weights, tmp_path / "mine.pth")
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "count"}  # as in the file count.py of a page
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
            exec(compile(block.replace('"steps": 2000', '"steps": 2'), str(page), "exec"), namespace)
    output = capsys.readouterr().out
    assert "FeatureInfo(channels=1024, stride=16)" in output
    assert "'circle'" in output
    assert namespace["detections"].boxes.shape[1] == 4


def write_own_data(shapes: Path, folder: Path) -> None:
    """Write ``train.json``, ``val.json`` and their images, as a reader's own data."""
    folder.mkdir()
    for split in ("train", "val"):
        shutil.copytree(shapes / split, folder / split)
        shutil.copy(shapes / "annotations" / f"instances_{split}.json", folder / f"{split}.json")


def test_commands_for_own_data_run_in_order(shapes, tmp_path, monkeypatch, capsys):
    """Law: every command of the section runs, with a tiny run and generated shapes in place of the reader's, and
    trainings of two steps."""
    train(tiny_config(shapes), tmp_path / "runs" / "quickstart")
    write_own_data(shapes, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    section = README.read_text().partition("## Your own data in one command\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^    vertebra (train .*)$|`vertebra (train [^`]*)`", section, flags=re.MULTILINE)
    assert len(commands) == 3
    short = ["--device", "cpu", "--set", "recipe.schedule.steps=2", "--set", "run.loader.workers=0"]
    for command in ("".join(groups).split() for groups in commands):
        assert main([*command, *short]) == 0, capsys.readouterr().err
    assert (tmp_path / "runs" / "mine" / "recipe.py").exists() and (tmp_path / "runs" / "again").exists()
    fields = re.findall(r"^    ([a-z_.]+)  +.*, because ", section, flags=re.MULTILINE)
    printed = capsys.readouterr().out
    assert len(fields) == 5 and all(field in printed for field in fields)


def test_readme_states_the_number_of_backbones():
    """Law: the number of built-in backbones that the page states is that of the table."""
    assert f"{len(RESNETS)} rows of the residual family" in README.read_text()
