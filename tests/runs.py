"""What a run leaves, for comparison with another."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from vertebra.engine import checkpoint_paths
from vertebra.tools.cli import main


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The newest checkpoint's tensors."""
    return load_file(checkpoint_paths(run / "checkpoints")[-1] / "model.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """The same names with the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def records(run: Path) -> list[dict]:
    """The run's metrics, without what the clock decides."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_second", "data_wait")} for line in lines]


def rescored(arguments: list[str], output: Path) -> dict:
    """The numbers that ``eval`` writes, without the facts beside them."""
    assert main(["eval", *arguments, "--json", str(output / "rescored.json")]) == 0
    return numbers(output / "rescored.json")


def numbers(path: Path) -> dict:
    """What a file of scores holds, without the facts beside them."""
    scores = json.loads(path.read_text())
    return {key: value for key, value in scores.items() if key not in ("step", "results")}
