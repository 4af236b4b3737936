"""``benchmark-evaluation``: it times the same files, and both libraries give the same metrics."""

import re

import pytest

from vertebra.tools.cli import main


@pytest.mark.parametrize("task", [pytest.param("bbox", marks=pytest.mark.slow), "segm"])
def test_benchmark_evaluation_compares_with_pycocotools(task, capsys):
    """Oracle: pycocotools in another process: the twelve metrics of the generated files are the same."""
    assert main(["benchmark-evaluation", "--task", task, "--images", "12", "--detections", "30", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{task}, 12 images, 360 detections")
    assert [line.split()[0] for line in lines[1:]] == ["vertebra", "pycocotools", "ratio"]
    difference = re.search(r"largest difference of a metric (\S+)$", lines[-1])
    assert difference is not None and float(difference[1]) <= 1e-12


def test_benchmark_of_class_maps_compares_with_torchvisions_reference(capsys):
    """Oracle: torchvision's way of counting, without results rows in between: the mean IoU is the same."""
    arguments = ["--task", "semantic", "--images", "2", "--rounds", "1", "--classes", "5"]
    assert main(["benchmark-evaluation", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("semantic, 2 images of 520 x 696 pixels, 5 classes")
    assert float(lines[-1].rpartition(" ")[2]) <= 1e-12
