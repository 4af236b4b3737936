"""Checkpoints: a folder of safetensors and JSON that describes itself, written whole or not at all."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, optim

from ..backbones import input_metadata
from ..structures import CheckpointError, Classes, UsageError
from .checkpoint_series import checkpoint_path, checkpoint_paths
from .config import ExperimentConfig, parse_config
from .sealed_folder import check_seal, write_sealed
from .step import TrainingState

FORMAT = 3
MODEL, OPTIMIZER, AVERAGE = "model.safetensors", "optimizer.safetensors", "average.safetensors"
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's facts; the tensors stay in its folder until they are asked for."""

    path: Path
    step: int
    config: ExperimentConfig
    classes: Mapping[str, Classes]
    """What labels mean, by task."""
    image_sums: Mapping[str, str]
    """A sum of the image ids of ``train`` and of ``val``, in order: the same data has the same."""


def save_checkpoint(folder: Path, step: int, state: TrainingState, description: Mapping[str, Any]) -> Path:
    """Write ``folder/step-N``. A kill or a full disk at any moment leaves the earlier checkpoints as they were.

    ``description`` is the rest of :class:`Checkpoint`: config (dumped), classes, image_sums. The weights' file tells
    alone how they want their pixels.
    """
    target = checkpoint_path(folder, step)
    with write_sealed(target) as writing:
        pixels = input_metadata(state.model.preprocess.config)
        save_file(_contiguous(state.model.state_dict()), writing / MODEL, pixels)
        if state.average is not None:
            save_file(_contiguous(state.average.model.state_dict()), writing / AVERAGE, pixels)
        tensors, groups = _flatten_optimizer(state.optimizer)
        save_file(tensors, writing / OPTIMIZER)
        facts = {
            "format": FORMAT,
            "step": step,
            **description,
            "optimizer_groups": groups,
            "scaler": state.scaler.state_dict(),
            "versions": {name: version(name) for name in ("vertebra", "torch", "torchvision")},
        }
        (writing / STATE).write_text(json.dumps(facts, indent=1, default=asdict))
    return target


def open_checkpoint(path: str | os.PathLike[str], notify: Callable[[str], None] | None = None) -> Checkpoint:
    """The checkpoint at ``path``, or the newest sound one of the run folder at ``path``.

    Checksums are verified. Where a run's newest checkpoint is damaged, ``notify`` is told and the one before is taken.
    """
    path = Path(path)
    if (path / STATE).exists():
        return _read(path)
    paths = checkpoint_paths(path / "checkpoints") or checkpoint_paths(path)
    if not paths:
        raise CheckpointError("there is no checkpoint here", "give a run folder or one of its checkpoints", file=path)
    for candidate in reversed(paths):
        try:
            return _read(candidate)
        except CheckpointError as error:
            if candidate == paths[0]:
                raise
            if notify is not None:
                notify(f"{error}; falling back to the checkpoint before")
    raise AssertionError("unreachable: the oldest candidate returns or raises")


def _read(path: Path) -> Checkpoint:
    """A checkpoint's description, once its files are known to be whole."""
    state_path = path / STATE
    try:
        check_seal(path, (MODEL, OPTIMIZER, STATE))
        state = json.loads(state_path.read_text())
        if state["format"] > FORMAT:
            raise CheckpointError(
                f"has format {state['format']}, this version reads up to {FORMAT}", "upgrade vertebra", file=state_path
            )
        return Checkpoint(
            path,
            state["step"],
            parse_config(state["config"], str(state_path)),
            {
                task: Classes(tuple(classes["names"]), tuple(classes["ids"]))
                for task, classes in state["classes"].items()
            },
            state["image_sums"],
        )
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise CheckpointError(f"cannot be read: {error!r}", "use another checkpoint", file=path) from error


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _flatten_optimizer(optimizer: optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Tensors by ``parameter.key``, and the groups, which are plain JSON."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in state["state"].items()
        for key, value in values.items()
        if value is not None
    }
    return _contiguous(tensors), state["param_groups"]
