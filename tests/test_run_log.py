"""What a run writes of its numbers."""

import json
import time
from pathlib import Path

import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vertebra.engine import train
from vertebra.engine.run_log import RunLog

from .runs import records
from .tiny import tiny_classifier


def open_log(folder: Path, **changes) -> RunLog:
    settings = {
        "steps": 8,
        "start": 0,
        "every": 4,
        "device": torch.device("cpu"),
        "console": Console(quiet=True),
        **changes,
    }
    return RunLog(folder, **settings)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_an_evaluation_between_two_lines_changes_no_mean(tmp_path):
    """A law: the means of four steps are the same with an evaluation after every third."""
    train(tiny_classifier(log_every=4), tmp_path / "plain")
    train(tiny_classifier(log_every=4, eval_every=3), tmp_path / "evaluated")
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


def test_curves_of_a_resumed_run_have_every_step_once(tmp_path):
    """TensorBoard's own reading: what a killed run wrote past its checkpoint is gone."""
    for start, loss in ((0, 1.0), (4, 2.0)):
        with open_log(tmp_path, start=start, every=1) as log:
            for step in range(start + 1, 8):
                log.step(step, {"loss": loss, "lr": 0.1}, images=1, waited=0.0)
        time.sleep(1.1)  # the files' names hold the second
    curve = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(event.step, event.value) for event in curve] == [
        (1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0), (6, 2.0), (7, 2.0),
    ]  # fmt: skip
