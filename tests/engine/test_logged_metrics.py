"""Metrics that a head returns beside its losses: what is logged, and that logging does not change the training."""

import json
import shutil

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vertebra.engine import TrainingState, train, train_step
from vertebra.ops import split_losses

from ..helpers.runs import equal_tensors, newest_weights, read_metrics
from ..helpers.tiny import tiny_config
from .test_step import detector

NAMES = {"rpn_recall", "rpn_positives", "box_positives"}


def test_log_interval_does_not_change_the_training(shapes, tmp_path):
    """Law: logged at every step or every other step, the weights are the same; TensorBoard has the metrics."""
    for every in (1, 2):
        train(tiny_config(shapes, run={"log_every": every}), tmp_path / str(every))
    assert equal_tensors(newest_weights(tmp_path / "1"), newest_weights(tmp_path / "2"))
    first, second = ([line for line in read_metrics(tmp_path / name) if line["group"] == "train"] for name in "12")
    assert all(line.keys() >= NAMES for line in first + second)
    assert [line["rpn_recall"] for line in second] == [line["rpn_recall"] for line in first[1::2]]
    curves = EventAccumulator(str(tmp_path / "1" / "tensorboard")).Reload().Tags()["scalars"]
    assert {f"train/{name}" for name in (*NAMES, "peak_memory", "grad_norm", "lr")} <= set(curves)


def test_logged_metric_is_the_mean_of_the_heads_values(shapes):
    """Oracle: what the model returned in the step; a step that is not logged has none of the metrics."""
    config, model, batch = detector(shapes, run={"log_every": 2})
    state = TrainingState.create(model, config)
    assert not NAMES & train_step(state, [batch], config, 1).keys()
    returned = {}
    model.register_forward_hook(lambda module, inputs, outputs: returned.update(outputs))
    numbers = train_step(state, [batch], config, 2)
    losses, metrics = split_losses(returned)
    assert metrics.keys() == NAMES
    for name, values in metrics.items():
        assert values.ndim == 1 and not values.requires_grad
        assert numbers[name] == pytest.approx(values.float().mean().item())
    assert numbers["loss"] == pytest.approx(sum(loss.item() for loss in losses.values()))


def test_last_record_has_all_metrics(shapes, tmp_path, capsys):
    """By hand: records of steps 3 and 4; an expected range that is checked at the last record finds its metric."""
    train(
        tiny_config(
            shapes, run={"log_every": 3, "expected_ranges": {"rpn_recall": (0.0, 1.0)}, "expected_from_step": 4}
        ),
        tmp_path / "run",
    )
    lines = {line["step"]: line.keys() for line in read_metrics(tmp_path / "run") if line["group"] == "train"}
    assert list(lines) == [3, 4] and lines[3] == lines[4] >= NAMES
    assert "WARNING" not in capsys.readouterr().err


def test_step_without_objects_has_no_recall(shapes, tmp_path):
    """By hand: recall over no objects is left out of the record."""
    empty = shutil.copytree(shapes, tmp_path / "empty")
    path = empty / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    train(tiny_config(empty), tmp_path / "run")
    lines = [line for line in read_metrics(tmp_path / "run") if line["group"] == "train"]
    assert all("rpn_recall" not in line and line["box_positives"] == 0 for line in lines) and len(lines) == 4


def test_metrics_are_averaged_over_micro_batches(shapes):
    """By hand: a step with the same images twice has the means of one."""
    config, model, batch = detector(shapes)
    numbers = [
        train_step(TrainingState.create(model, config), batches, config, 1) for batches in ([batch], [batch, batch])
    ]
    assert numbers[1]["rpn_positives"] == pytest.approx(numbers[0]["rpn_positives"])
    assert numbers[0].keys() == numbers[1].keys() >= NAMES


def test_loss_without_the_loss_prefix_is_refused(shapes):
    """By hand: ValueError that says how a loss must be named, before anything is trained."""
    config, model, batch = detector(shapes)
    model.head.loss = lambda *inputs: {"objectness": torch.zeros((), requires_grad=True)}
    with pytest.raises(ValueError, match=r"begins with 'loss_', such as 'loss_class'; got \['objectness'\]"):
        train_step(TrainingState.create(model, config), [batch], config, 1)
