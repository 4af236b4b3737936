"""``count-operations``: the number of launches of a training step on a GPU, which the batch does not increase."""

import pytest

from vertebra.tools.cli import main
from vertebra.tools.operation_counts import count_operations


def test_operations_do_not_grow_with_the_batch():
    """Law: a Mask R-CNN launches at most 1200 operations, one of them NMS, whether it has one image or eight."""
    one, eight = (count_operations("mask_rcnn", (800, 1216), batch) for batch in (1, 8))
    assert one == eight
    assert eight.forward.total() + eight.backward.total() <= 1200
    assert eight.forward["vertebra::nms_mask"] == 1


@pytest.mark.parametrize("name", ["retinanet", "fcos", "keypoint_rcnn"])
def test_operations_of_other_detectors_do_not_grow_either(name):
    """Law: neither do those of a head with anchors, with points, or with keypoints."""
    small, large = (count_operations(name, (128, 160), batch) for batch in (1, 5))
    assert small == large


def test_command_prints_a_table(capsys):
    """By hand: a row per operation and one of all; an unknown detector is exit code 2."""
    assert main(["count-operations", "--size", "64x96", "--batch", "1", "--top", "2"]) == 0
    printed = capsys.readouterr().out
    assert "mask_rcnn, 1 x 64x96" in printed and "all" in printed
    assert main(["count-operations", "--model", "mask"]) == 2
    assert "mask_rcnn" in capsys.readouterr().err
