"""What a run writes of its numbers."""

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

from ..helpers.runs import records
from ..helpers.tiny import tiny_classifier


def open_log(folder: Path, start: int = 0, every: int = 4) -> RunLog:
    config = tiny_classifier(recipe={"schedule": ScheduleConfig(steps=8)}, run={"log_every": every})
    display = ProgressDisplay(Console(quiet=True))
    return RunLog(folder, config, display, start=start, pending_values={}, device=torch.device("cpu"))


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_an_evaluation_between_two_lines_changes_no_mean(tmp_path):
    """A law: the means of four steps are the same with an evaluation after every third."""
    train(tiny_classifier(run={"log_every": 4}), tmp_path / "plain")
    train(tiny_classifier(run={"log_every": 4}, evaluation={"every": 3}), tmp_path / "evaluated")
    plain, evaluated = (
        [line for line in records(tmp_path / name) if line["group"] == "train"] for name in ("plain", "evaluated")
    )
    assert plain == evaluated


def test_the_clock_stands_still_while_paused(tmp_path):
    """By hand: four images in less than a quarter of a second, though a second of it was an evaluation."""
    with open_log(tmp_path) as log:
        for step in (1, 2, 3, 4):
            log.step(step, {"loss": float(step), "lr": 0.1}, images=1, waited=0.0)
            if step == 2:
                with log.paused():
                    time.sleep(1)
    (line,) = lines(tmp_path)
    assert line["loss"] == 2.5 and line["images_per_second"] > 16


@pytest.mark.parametrize("saved", [2, 6])
def test_the_log_resumed_between_two_lines_is_the_unbroken_one(saved, tmp_path, capsys):
    """A law: the next record has the mean of all its steps, those before the checkpoint too, and a band reads it."""
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
    unbroken, warning = records(tmp_path / "run"), read_warning(capsys)
    for path in checkpoint_paths(tmp_path / "run" / "checkpoints"):
        if path.name > f"step-{saved:07d}":
            shutil.rmtree(path)
    train(config, tmp_path / "run", resume=True)
    assert records(tmp_path / "run") == unbroken and read_warning(capsys) == warning


def test_the_first_step_is_told_at_once_and_changes_no_record(tmp_path, capsys):
    """By hand: a line after the first step although records come after four, with its loss; the record is the mean of
    four steps, as in a run that logs every step."""
    config = tiny_classifier(run={"log_every": 4})
    train(config, tmp_path / "sparse")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    train(config.replace(run={"log_every": 1}), tmp_path / "dense")
    sparse, dense = (
        [line for line in records(tmp_path / name) if line["group"] == "train"] for name in ("sparse", "dense")
    )
    assert [line.split()[1] for line in told] == ["1/4", "4/4"]
    assert f"class {dense[0]['loss_class']:.3f}" in told[0] and "first step" in told[0]
    assert len(sparse) == 1 and sparse[0]["step"] == 4
    assert sparse[0]["loss"] == pytest.approx(sum(line["loss"] for line in dense) / 4)


def test_an_evaluation_tells_how_far_it_has_come(monkeypatch):
    """By hand: three batches of a second each, and a line after every second: two done of three take one more."""
    clock = iter(range(100))
    monkeypatch.setattr("vertebra.engine.logging.progress.SECONDS_BETWEEN_LINES", 1.0)
    monkeypatch.setattr("vertebra.engine.logging.progress.time.monotonic", lambda: float(next(clock)))
    said = io.StringIO()
    display = ProgressDisplay(Console(file=said))
    assert list(display.track("abc", total=3, label="evaluating", unit="batches")) == ["a", "b", "c"]
    assert said.getvalue().splitlines() == [
        "evaluating: 1/3 batches  ETA 2 s",
        "evaluating: 2/3 batches  ETA 1 s",
    ]


def test_an_evaluation_has_a_bar_on_a_terminal(tmp_path):
    """By hand: the label, the batches and the time to go; the bar is gone afterwards, and a training's stays."""
    said = io.StringIO()
    display = ProgressDisplay(Console(file=said, force_terminal=True, width=120))
    with display.shown():
        display.add_bar("step", 10)
        assert len(list(display.track(range(5), total=5, label="evaluating", unit="batches"))) == 5
    shown = said.getvalue()
    assert "evaluating" in shown and "step" in shown and "ETA" in shown


def read_warning(capsys) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("WARNING"))
    return line


@pytest.mark.parametrize("first", [0, 4])
def test_curves_of_a_resumed_run_have_every_step_once(first, tmp_path):
    """TensorBoard's own reading: what a killed run wrote past its checkpoint, or before its first one, is gone."""
    for start, loss in ((0, 1.0), (first, 2.0)):
        with open_log(tmp_path, start=start, every=1) as log:
            for step in range(start + 1, 8):
                log.step(step, {"loss": loss, "lr": 0.1}, images=1, waited=0.0)
        time.sleep(1.1)  # the files' names hold the second
    curve = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(event.step, event.value) for event in curve] == [
        (step, 2.0 if step > first else 1.0) for step in range(1, 8)
    ]
