"""``benchmark-evaluation``: it times the same files, and both libraries give the same metrics."""

import re

import pytest

from vertebra.tools.cli import main


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_benchmark_evaluation_compares_with_pycocotools(task, capsys):
    """Oracle: pycocotools in another process: the twelve metrics of the generated files are the same."""
    assert main(["benchmark-evaluation", "--task", task, "--images", "12", "--detections", "30", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{task}, 12 images, 360 detections")
    assert [line.split()[0] for line in lines[1:]] == ["vertebra", "pycocotools", "ratio"]
    difference = re.search(r"largest difference of a metric (\S+)$", lines[-1])
    assert difference is not None and float(difference[1]) <= 1e-12
