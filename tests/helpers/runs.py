"""What a run leaves, for comparison with another."""

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


def run_in_process(
    config: ExperimentConfig, output: Path, *flags: str, config_folder: Path | None = None, processes: int = 1
) -> subprocess.Popen[str]:
    """A training in a session of its own, by the tool: one process, or more by torchrun; its config is beside the
    output."""
    path = (config_folder or output.parent) / f"{output.name}.json"
    write_json(path, config.model_dump(mode="json"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    python = [sys.executable, *(torchrun if processes > 1 else [])]
    tool = ["-m", "vertebra.tools.train", str(path), "--output", str(output), "--device", "cpu"]
    return start_process([*python, *tool, *flags])


def start_process(command: list[str]) -> subprocess.Popen[str]:
    """A process in a session of its own, whose stderr is read; none outlives its test."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    _started.append(process)
    return process


def end_processes() -> None:
    """Kill what is left of the processes that were started."""
    for process in _started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    _started.clear()


_started: list[subprocess.Popen[str]] = []


def wait_for_steps(process: subprocess.Popen[str], run: Path) -> None:
    """Until the first steps are logged."""
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The newest checkpoint's tensors."""
    return load_file(checkpoint_paths(run / "checkpoints")[-1] / "model.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """The same names with the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def records(run: Path) -> list[dict]:
    """The run's metrics, without what the machine decides."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = ("images_per_second", "data_wait", "peak_memory")
    return [{key: value for key, value in line.items() if key not in measured} for line in lines]


def rescored(arguments: list[str], output: Path) -> dict:
    """The numbers that ``eval`` writes, without the facts beside them."""
    assert main(["eval", *arguments, "--json", str(output / "rescored.json")]) == 0
    return numbers(output / "rescored.json")


def numbers(path: Path) -> dict:
    """What a file of scores holds, without the facts beside them."""
    scores = json.loads(path.read_text())
    return {key: value for key, value in scores.items() if key not in ("step", "results")}
