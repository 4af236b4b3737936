"""Runs that are killed at any moment and by any signal, and how they resume."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from vertebra.data import LoaderConfig
from vertebra.engine import ExperimentConfig, ScheduleConfig, TrainingState, save_checkpoint, train
from vertebra.engine.checkpoints import link_best, prune_checkpoints
from vertebra.engine.loop.stop_requests import REPEAT_WINDOW, Interrupted
from vertebra.inference import checkpoint_paths, open_checkpoint
from vertebra.models import build_model

from ..helpers.runs import equal_tensors, newest_weights, read_metrics, start_process, start_training, wait_for_steps
from ..helpers.tiny import tiny_classifier, tiny_config

SCHEDULE = ScheduleConfig(steps=12, warmup_steps=2)
EVERYTHING = {"ema_decay": 0.9, "accumulate": 2, "batch_size": 4, "precision": "fp16", "schedule": SCHEDULE}
"""A recipe with all the state that a step can have beside the weights: an EMA, a loss scale, micro-batches."""


def kill_after_save(moment: float, process: subprocess.Popen[str], checkpoints: Path) -> None:
    """Kill the process and its children ``moment`` seconds after its first save."""
    before = set(checkpoint_paths(checkpoints))
    while process.poll() is None and set(checkpoint_paths(checkpoints)) <= before:
        time.sleep(0.01)
    time.sleep(moment)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def train_with_kills(config: ExperimentConfig, output: Path, kills: int, processes: int = 1) -> None:
    """Start a run, kill and resume it ``kills`` times at random moments, and let it finish."""
    generator = random.Random(kills)
    for kill in range(kills + 1):
        resume = ["--resume"] if (output / "config.json").exists() else []
        process = start_training(config, output, *resume, processes=processes)
        if kill < kills:
            kill_after_save(generator.uniform(0, 0.5), process, output / "checkpoints")
    _, printed = process.communicate(timeout=300)
    assert process.returncode == 0, printed


@pytest.mark.parametrize(
    ("workers", "kills"),
    [(0, 1), *(pytest.param(workers, 3, marks=pytest.mark.slow) for workers in (0, 2, 4))],
)
def test_run_killed_at_random_resumes_bit_exactly(tmp_path, workers, kills):
    """docs/faults.md row 105. Law: after SIGKILL at any moments, weights, EMA, loss scale and log are bit-equal to
    an uninterrupted run without workers."""
    config = tiny_classifier(recipe=EVERYTHING, evaluation={"every": 7}, run={"checkpoint_every": 2, "log_every": 3})
    train(config, tmp_path / "unbroken")
    broken = config.replace(run={"loader": LoaderConfig(workers=workers)})
    train_with_kills(broken, tmp_path / "broken", kills)
    check_equal_runs(tmp_path / "broken", tmp_path / "unbroken")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_killed_at_random_resume_bit_exactly(shapes, tmp_path, workers):
    """docs/faults.md row 105. Law: two processes, killed at random, end bit-equal to an uninterrupted run."""
    config = tiny_config(shapes, recipe={"schedule": SCHEDULE, "ema_decay": 0.9}, run={"checkpoint_every": 2})
    config = config.replace(run={"loader": LoaderConfig(workers=workers)})
    for name, kills in (("unbroken", 0), ("broken", 2)):
        train_with_kills(config, tmp_path / name, kills, processes=2)
    check_equal_runs(tmp_path / "broken", tmp_path / "unbroken")


def check_equal_runs(first: Path, second: Path) -> None:
    """Check that everything that a later step or an evaluation would read is bit-equal."""
    assert equal_tensors(newest_weights(first), newest_weights(second))
    assert read_metrics(first) == read_metrics(second)
    for name in ("average.safetensors", "optimizer.safetensors"):
        ours, theirs = (load_file(checkpoint_paths(run / "checkpoints")[-1] / name) for run in (first, second))
        assert equal_tensors(ours, theirs), name
    ours, theirs = (checkpoint_paths(run / "checkpoints")[-1] / "state.json" for run in (first, second))
    assert json.loads(ours.read_text())["scaler"] == json.loads(theirs.read_text())["scaler"]


def test_resuming_at_the_end_of_an_epoch_is_exact(tmp_path):
    """docs/faults.md row 112. Law: a run resumed at the end of an epoch begins the next one.

    Eight images in batches of two are an epoch of four steps.
    """
    config = tiny_classifier(recipe={"schedule": ScheduleConfig(steps=8, warmup_steps=2)}, run={"checkpoint_every": 4})
    train(config, tmp_path / "run")
    whole, log = newest_weights(tmp_path / "run"), read_metrics(tmp_path / "run")
    last = checkpoint_paths(tmp_path / "run" / "checkpoints")[-1]
    last.rename(tmp_path / "aside")
    assert open_checkpoint(tmp_path / "run").step == 4
    train(config, tmp_path / "run", resume=True)
    assert equal_tensors(newest_weights(tmp_path / "run"), whole) and read_metrics(tmp_path / "run") == log


def save_forever(folder: Path, state: TrainingState, facts: Mapping[str, Any], first: int) -> None:
    """Save a checkpoint for one step after another, as a run does."""
    for step in range(first, 1_000_000):
        save_checkpoint(folder, step, state, facts)
        link_best(folder, step)
        prune_checkpoints(folder, keep=2)


@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_kill_during_a_save_leaves_an_intact_checkpoint(tmp_path, kills):
    """docs/faults.md row 106. Law: after SIGKILL at random moments of a process that only saves, the newest checkpoint
    is intact.

    No earlier checkpoint is lost, and ``best`` points to an intact one.
    """
    config = tiny_classifier(recipe={"ema_decay": 0.9})
    state = TrainingState.create(build_model(config.model, ("a", "b")), config)
    facts = {"config": config.model_dump(mode="json"), "inference": {}, "origin": None}
    names = ("classes", "image_id_digests", "annotation_digests", "pending_values", "user_modules")
    facts |= {name: {} for name in names}
    save_checkpoint(tmp_path, 1, state, facts)
    generator, reached, cut = random.Random(kills), 1, 0
    for _ in range(kills):
        # A fork, which need not import torch anew and saves at once.
        process = multiprocessing.get_context("fork").Process(
            target=save_forever, args=(tmp_path, state, facts, reached + 1)
        )
        process.start()
        process.join(generator.uniform(0, 0.5))
        process.kill()
        process.join()
        before, reached = reached, open_checkpoint(tmp_path, notify=pytest.fail).step
        assert reached >= before
        if (tmp_path / "best").exists():
            assert open_checkpoint(tmp_path / "best").step >= reached - 1
        cut += any(tmp_path.glob(".writing-*"))
    assert cut > kills // 4, "the kills met no save"
    assert reached > kills // 4, "no save came through"


def test_ctrl_c_stops_after_the_step_with_a_checkpoint(tmp_path):
    """docs/faults.md row 109. By hand: exit code 130, and one line that names the step."""
    config = tiny_classifier(recipe={"schedule": ScheduleConfig(steps=100_000)}, run={"checkpoint_every": 100_000})
    process = start_training(config, tmp_path / "run")
    wait_for_steps(process, tmp_path / "run")
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    step = open_checkpoint(tmp_path / "run").step
    assert f"error: interrupted: stopped by SIGINT after step {step}: continue with --resume\n" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("step", [3, 4])
def test_signal_ends_an_evaluation_at_once(tmp_path, monkeypatch, step):
    """docs/faults.md row 109. Law: after a signal in the middle of an evaluation or at its end, the resumed run
    evaluates, with the same result.

    The signal comes again while the run ends, as torchrun sends it, and does not interrupt that.
    """
    ends = []

    def interrupted(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            ends.append("put away")

    config = tiny_classifier(evaluation={"every": step}, run={"checkpoint_every": 100})
    train(config, tmp_path / "unbroken")
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["vertebra.engine.loop.train"], "evaluate", interrupted)
        with pytest.raises(Interrupted, match=f"stopped by SIGTERM after step {step}") as caught:
            train(config, tmp_path / "run")
    assert caught.value.exit_code == 143 and open_checkpoint(tmp_path / "run").step == step
    assert ends == ["put away"]
    train(config, tmp_path / "run", resume=True)
    assert equal_tensors(newest_weights(tmp_path / "run"), newest_weights(tmp_path / "unbroken"))
    assert read_metrics(tmp_path / "run") == read_metrics(tmp_path / "unbroken")


SLOW_STEP = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what is to run in the background
import vertebra.engine
from vertebra.tools.cli import main

def sleep(*arguments):
    print("in a step", file=sys.stderr, flush=True)
    time.sleep(100)

sys.modules["vertebra.engine.loop.train"].train_step = sleep
raise SystemExit(main(["train", *sys.argv[1:], "--device", "cpu"]))
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, -signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_second_signal_ends_the_run_at_once(tmp_path, number, code):
    """docs/faults.md row 109. By hand: a second signal ends a run whose step takes forever.

    A signal soon after the first does not count, since torchrun forwards what a scheduler has sent to all processes.
    """
    (tmp_path / "config.json").write_text(tiny_classifier().model_dump_json())
    command = [sys.executable, "-c", SLOW_STEP, str(tmp_path / "config.json"), "--output", str(tmp_path / "run")]
    process = start_process(command)
    assert process.stderr is not None
    while "in a step" not in (line := process.stderr.readline()):
        assert line, "it ended before its first step"
    for pause in (0.5, REPEAT_WINDOW + 2):  # the first may be handled late on a busy machine
        os.kill(process.pid, number)
        time.sleep(pause)
        assert process.poll() is None
    os.kill(process.pid, number)
    _, printed = process.communicate(timeout=20)
    assert process.returncode == code and "Traceback" not in printed
