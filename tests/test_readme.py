"""README: its Python blocks run."""

import re
from pathlib import Path

import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from vertebra.backbones import RESNETS
from vertebra.engine import train

from .helpers.tiny import tiny_config

README = Path(__file__).parent.parent / "README.md"


def test_readme_snippets_run_in_order(shapes, tmp_path, monkeypatch, capsys):
    """Law: every Python block runs, in one namespace, as if a reader typed them.

    A tiny run takes the place of the quickstart's, and random weights that of a detector trained with torchvision.
    """
    train(tiny_config(shapes), tmp_path / "runs" / "quickstart")
    torch.save(
        fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4).state_dict(), tmp_path / "mine.pth"
    )
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    namespace: dict = {"__name__": "count"}  # as in the file count.py of the page
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    output = capsys.readouterr().out
    assert "FeatureInfo(channels=1024, stride=16)" in output
    assert "'circle'" in output
    assert namespace["detections"].boxes.shape[1] == 4


def test_readme_states_the_number_of_backbones():
    """Law: the number of built-in backbones that the page states is that of the table."""
    assert f"{len(RESNETS)} rows of the residual family" in README.read_text()
