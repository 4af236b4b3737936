"""The log of a run: records, curves, and what is printed when."""

import io
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vertebra.engine import ScheduleConfig, train
from vertebra.engine.logging.progress import ProgressDisplay
from vertebra.engine.logging.run_log import RunLog
from vertebra.inference import checkpoint_paths

from ..helpers.runs import read_metrics
from ..helpers.tiny import tiny_classifier


def open_log(folder: Path, start: int = 0, every: int = 4) -> RunLog:
    config = tiny_classifier(recipe={"schedule": ScheduleConfig(steps=8)}, run={"log_every": every})
    display = ProgressDisplay(Console(quiet=True))
    return RunLog(folder, config, display, start=start, pending_values={}, device=torch.device("cpu"))


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_evaluation_does_not_change_logged_means(tmp_path):
    """Law: the means of four steps are the same with an evaluation after every third step."""
    train(tiny_classifier(run={"log_every": 4}), tmp_path / "plain")
    train(tiny_classifier(run={"log_every": 4}, evaluation={"every": 3}), tmp_path / "evaluated")
    plain, evaluated = (
        [line for line in read_metrics(tmp_path / name) if line["group"] == "train"] for name in ("plain", "evaluated")
    )
    assert plain == evaluated


def test_throughput_excludes_evaluations(tmp_path):
    """By hand: four images in less than a quarter of a second, although an evaluation took a second."""
    with open_log(tmp_path) as log:
        for step in (1, 2, 3, 4):
            log.step(step, {"loss": float(step), "lr": 0.1}, images=1, waited=0.0)
            if step == 2:
                with log.paused():
                    time.sleep(1)
    (line,) = lines(tmp_path)
    assert line["loss"] == 2.5 and line["images_per_second"] > 16


@pytest.mark.parametrize("saved", [2, 6])
def test_resuming_between_two_records_keeps_their_means(saved, tmp_path, capsys):
    """Law: the next record has the means of all its steps, those before the checkpoint too, and so does its warning."""
    schedule = ScheduleConfig(steps=7, warmup_steps=2)
    config = tiny_classifier(
        run={
            "log_every": 4,
            "keep_checkpoints": 9,
            "expected_ranges": {"loss": (9.0, 9.0)},
            "expected_from_step": saved + 1,
        },
        recipe={"schedule": schedule},
    )
    train(config, tmp_path / "run")
    unbroken, warning = read_metrics(tmp_path / "run"), read_warning(capsys)
    for path in checkpoint_paths(tmp_path / "run" / "checkpoints"):
        if path.name > f"step-{saved:07d}":
            shutil.rmtree(path)
    train(config, tmp_path / "run", resume=True)
    assert read_metrics(tmp_path / "run") == unbroken and read_warning(capsys) == warning


def test_first_line_is_printed_after_the_first_step(tmp_path, capsys):
    """By hand: a line with the loss of the first step, although records come after four steps.

    The record is the mean of four steps, as in a run that logs every step.
    """
    config = tiny_classifier(run={"log_every": 4})
    train(config, tmp_path / "sparse")
    lines_printed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    train(config.replace(run={"log_every": 1}), tmp_path / "dense")
    sparse, dense = (
        [line for line in read_metrics(tmp_path / name) if line["group"] == "train"] for name in ("sparse", "dense")
    )
    assert [line.split()[1] for line in lines_printed] == ["1/4", "4/4"]
    assert f"class {dense[0]['loss_class']:.3f}" in lines_printed[0] and "first step" in lines_printed[0]
    assert len(sparse) == 1 and sparse[0]["step"] == 4
    assert sparse[0]["loss"] == pytest.approx(sum(line["loss"] for line in dense) / 4)


def test_evaluation_prints_its_progress(monkeypatch):
    """By hand: three batches of a second, and a line every second: after two of three batches, one second is left."""
    clock = iter(range(100))
    monkeypatch.setattr("vertebra.engine.logging.progress.SECONDS_BETWEEN_LINES", 1.0)
    monkeypatch.setattr("vertebra.engine.logging.progress.time.monotonic", lambda: float(next(clock)))
    printed = io.StringIO()
    display = ProgressDisplay(Console(file=printed))
    assert list(display.track("abc", total=3, label="evaluating", unit="batches")) == ["a", "b", "c"]
    assert printed.getvalue().splitlines() == [
        "evaluating: 1/3 batches  ETA 2 s",
        "evaluating: 2/3 batches  ETA 1 s",
    ]


def test_evaluation_has_a_progress_bar_on_a_terminal(tmp_path):
    """By hand: label, batches and remaining time; the bar of the training stays beside it."""
    printed = io.StringIO()
    display = ProgressDisplay(Console(file=printed, force_terminal=True, width=120))
    with display.shown():
        display.add_bar("step", 10)
        assert len(list(display.track(range(5), total=5, label="evaluating", unit="batches"))) == 5
    shown = printed.getvalue()
    assert "evaluating" in shown and "step" in shown and "ETA" in shown


def read_warning(capsys) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING"))
    return line


@pytest.mark.parametrize("first", [0, 4])
def test_tensorboard_curves_of_a_resumed_run_have_every_step_once(first, tmp_path):
    """Oracle: TensorBoard reads the curves; what a killed run wrote after its checkpoint is gone."""
    for start, loss in ((0, 1.0), (first, 2.0)):
        with open_log(tmp_path, start=start, every=1) as log:
            for step in range(start + 1, 8):
                log.step(step, {"loss": loss, "lr": 0.1}, images=1, waited=0.0)
        time.sleep(1.1)  # the files' names hold the second
    curve = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(event.step, event.value) for event in curve] == [
        (step, 2.0 if step > first else 1.0) for step in range(1, 8)
    ]
