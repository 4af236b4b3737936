"""The README's Python runs as it stands."""

import re
from pathlib import Path

from vertebra.backbones import RESNETS
from vertebra.engine import train

from .helpers.tiny import tiny_config

README = Path(__file__).parent.parent / "README.md"


def test_the_snippets_run_in_order(shapes, tmp_path, monkeypatch, capsys):
    """Every Python block, in one namespace, as a reader would type them; a tiny run stands for the quickstart's."""
    train(tiny_config(shapes), tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    output = capsys.readouterr().out
    assert "FeatureInfo(channels=1024, stride=16)" in output
    assert "'circle'" in output
    assert namespace["detections"].boxes.shape[1] == 4
    head = re.search(r"class CountHead.*?\n\n\n", README.read_text(), flags=re.DOTALL)
    assert head is not None and head[0].count("\n") < 30


def test_the_readme_counts_the_rows():
    """Law: the number of built-in backbones that it names is the table's."""
    assert f"{len(RESNETS)} rows of the residual family" in README.read_text()
