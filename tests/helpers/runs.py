"""Starting training processes, and reading what a run has written, for comparison with another run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from vertebra.engine import ExperimentConfig
from vertebra.formats import write_json
from vertebra.inference import checkpoint_paths
from vertebra.tools.cli import main


def start_training(
    config: ExperimentConfig, output: Path, *flags: str, config_folder: Path | None = None, processes: int = 1
) -> subprocess.Popen[str]:
    """Start a training in a process of its own: one process, or several with torchrun. Its config is written beside
    the output."""
    path = (config_folder or output.parent) / f"{output.name}.json"
    write_json(path, config.model_dump(mode="json"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    python = [sys.executable, *(torchrun if processes > 1 else [])]
    tool = ["-m", "vertebra.tools.train", str(path), "--output", str(output), "--device", "cpu"]
    return start_process([*python, *tool, *flags])


def start_process(command: list[str]) -> subprocess.Popen[str]:
    """Start a process in a session of its own, with its stderr piped; it is killed when the test ends."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    _started.append(process)
    return process


def kill_started_processes() -> None:
    """Kill all processes that were started and still run."""
    for process in _started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    _started.clear()


_started: list[subprocess.Popen[str]] = []


def wait_for_steps(process: subprocess.Popen[str], run: Path) -> None:
    """Wait until the run has logged its first steps."""
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)


def newest_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the newest checkpoint of a run."""
    return load_file(checkpoint_paths(run / "checkpoints")[-1] / "model.safetensors")


def equal_tensors(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether two dicts of tensors have the same names and bit-identical values."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def read_metrics(run: Path) -> list[dict]:
    """Return the lines of a run's metrics.jsonl, without measurements of time and memory."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = ("images_per_second", "data_wait", "peak_memory")
    return [{key: value for key, value in line.items() if key not in measured} for line in lines]


def eval_scores(arguments: list[str], output: Path) -> dict:
    """Run ``vertebra eval`` with these arguments, and return the scores that it writes."""
    assert main(["eval", *arguments, "--json", str(output / "rescored.json")]) == 0
    return read_scores(output / "rescored.json")


def read_scores(path: Path) -> dict:
    """Return the scores in a file such as eval.json, without its step and the path of the results."""
    scores = json.loads(path.read_text())
    return {key: value for key, value in scores.items() if key not in ("step", "results")}
