"""Numbers beside the losses: what they are, and that watching changes nothing."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vertebra.engine import TrainingState, train, train_step
from vertebra.heads.rpn import Proposals, proposal_recall
from vertebra.ops import collect_metrics, is_collecting_metrics, metric_prefix, note
from vertebra.structures import Instances

from ..engine.test_step import detector
from ..helpers.runs import equal, records, weights
from ..helpers.tiny import tiny_config

NAMES = {"rpn_recall", "rpn_positives", "box_positives"}


def objects(*boxes) -> Instances:
    return Instances(torch.tensor(boxes).view(-1, 4), torch.zeros(len(boxes), dtype=torch.int64))


def test_recall_is_the_share_of_objects_with_a_proposal():
    """By hand: one found exactly, one overlapped by a third, one by padding only; an image without objects."""
    targets = [objects([0.0, 0, 10, 10], [20.0, 0, 30, 10]), objects([0.0, 0, 10, 10]), objects()]
    boxes = torch.zeros(3, 2, 4)
    boxes[0, 0], boxes[0, 1], boxes[1, 0] = (
        torch.tensor(box) for box in ([0.0, 0, 10, 10], [25.0, 0, 35, 10], [0.0, 0, 10, 10])
    )
    valid = torch.tensor([[True, True], [False, False], [True, True]])
    assert proposal_recall(Proposals(boxes, valid), targets, 0.5).tolist() == [True, False, False]
    assert proposal_recall(Proposals(boxes, valid), targets, 0.3).tolist() == [True, True, False]


def test_notes_are_collected_where_somebody_watches():
    """By hand: in pieces, under a head's name, and not at all outside."""
    note("x", torch.ones(1))
    with collect_metrics() as notes, metric_prefix("boxes_"):
        assert is_collecting_metrics()
        note("x", torch.ones(2, requires_grad=True))
        note("x", torch.zeros(0, dtype=torch.bool))
    assert not is_collecting_metrics() and list(notes) == ["boxes_x"]
    assert torch.equal(torch.cat(notes["boxes_x"]), torch.ones(2)) and not notes["boxes_x"][0].requires_grad


COMPILED = """
import torch
from vertebra.ops import note, metric_prefix, is_collecting_metrics, collect_metrics

def part(x):
    with metric_prefix("head_"):
        if is_collecting_metrics():
            note("mean", x + 1)
    return x * 2

compiled = torch.compile(part, fullgraph=True, backend="eager")
for _ in range(2):
    with collect_metrics() as notes:
        assert torch.equal(compiled(torch.ones(3)), part(torch.ones(3)))
    first, second = notes["head_mean"]
    assert torch.equal(first, second)
assert torch.equal(compiled(torch.ones(3)), part(torch.ones(3)))
"""


def test_a_compiled_part_can_note():
    """Oracle: the same part uncompiled. ``fullgraph`` refuses what breaks the graph, as the checks in tests do."""
    subprocess.run([sys.executable, "-c", COMPILED], check=True, timeout=100)


def test_positives_are_those_that_the_losses_count(shapes):
    """Oracle: the head's own sample, drawn again from the same seed."""
    _, model, batch = detector(shapes)
    head, features = model.head, model.features(batch.images)
    torch.manual_seed(3)
    with collect_metrics() as notes:
        head.loss(features, batch.images, batch.targets)
    torch.manual_seed(3)
    dense = head.rpn(features, batch.images)
    head.rpn.loss(dense, batch.targets)
    samples = head.box.sample(head.rpn.propose(dense, batch.images, training=True), batch.targets)
    expected = [(labels < head.box.num_classes).sum().item() for labels in samples.labels]
    assert notes["box_positives"][0].tolist() == expected and min(expected) > 0
    assert len(notes["rpn_recall"][0]) == sum(len(target) for target in batch.targets)
    assert (notes["rpn_positives"][0] >= 1).all() and (notes["rpn_positives"][0] <= 16).all()  # half of 32


def test_watching_changes_no_bit(shapes, tmp_path):
    """A law: logged every step or every other, the weights are the same; the curves show what was watched."""
    for every in (1, 2):
        train(tiny_config(shapes, run={"log_every": every}), tmp_path / str(every))
    assert equal(weights(tmp_path / "1"), weights(tmp_path / "2"))
    first, second = ([line for line in records(tmp_path / name) if line["group"] == "train"] for name in "12")
    assert all(line.keys() >= NAMES for line in first + second)
    assert [line["rpn_recall"] for line in second] == [line["rpn_recall"] for line in first[1::2]]
    curves = EventAccumulator(str(tmp_path / "1" / "tensorboard")).Reload().Tags()["scalars"]
    assert {f"train/{name}" for name in (*NAMES, "peak_memory", "grad_norm", "lr")} <= set(curves)


def test_the_last_record_has_what_the_others_have(shapes, tmp_path, capsys):
    """By hand: records of steps 3 and 4; a band looked at in the last is of a number that is there."""
    train(
        tiny_config(
            shapes, run={"log_every": 3, "expected_ranges": {"rpn_recall": (0.0, 1.0)}, "expected_from_step": 4}
        ),
        tmp_path / "run",
    )
    lines = {line["step"]: line.keys() for line in records(tmp_path / "run") if line["group"] == "train"}
    assert list(lines) == [3, 4] and lines[3] == lines[4] >= NAMES
    assert "WARNING" not in capsys.readouterr().err


def test_a_step_without_an_object_has_no_recall(shapes, tmp_path):
    """By hand: a share of nothing is left out, and no mean has a part in it."""
    empty = shutil.copytree(shapes, tmp_path / "empty")
    path = empty / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    train(tiny_config(empty), tmp_path / "run")
    lines = [line for line in records(tmp_path / "run") if line["group"] == "train"]
    assert all("rpn_recall" not in line and line["box_positives"] == 0 for line in lines) and len(lines) == 4


def test_micro_batches_add_up(shapes):
    """By hand: a step of the same images twice has the means of one."""
    config, model, batch = detector(shapes)
    found = [
        train_step(TrainingState.create(model, config), batches, config, 1) for batches in ([batch], [batch, batch])
    ]
    assert found[1]["rpn_positives"] == pytest.approx(found[0]["rpn_positives"])
    assert found[0].keys() == found[1].keys() >= NAMES
