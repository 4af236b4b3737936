"""Checkpoints: a folder of safetensors and JSON that describes itself, written whole or not at all.

``SHA256SUMS`` holds the sums of its files, as ``sha256sum -c`` reads them.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim

from ..backbones import input_metadata
from ..models import Model, build_model
from ..ops import first_few, state_dict_faults
from ..structures import CheckpointError, Classes, UsageError, refusals_as_usage_errors
from .config import ExperimentConfig, parse_config
from .step import TrainingState

FORMAT = 3
_MODEL, _OPTIMIZER, _AVERAGE = "model.safetensors", "optimizer.safetensors", "average.safetensors"
_STATE, _SUMS = "state.json", "SHA256SUMS"
BEST = "best"


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


def save_checkpoint(
    folder: Path,
    step: int,
    state: TrainingState,
    description: Mapping[str, Any],
) -> Path:
    """Write ``folder/step-N``. A kill or a full disk at any moment leaves the earlier checkpoints as they were.

    ``description`` is the rest of :class:`Checkpoint`: config (dumped), classes, image_sums. The weights' file tells
    alone how they want their pixels.
    """
    target = folder / _name(step)
    temporary = folder / f".writing-{target.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a save that was killed
        temporary.mkdir(parents=True)
        pixels = input_metadata(state.model.preprocess.config)
        save_file(_contiguous(state.model.state_dict()), temporary / _MODEL, pixels)
        if state.average is not None:
            save_file(_contiguous(state.average.model.state_dict()), temporary / _AVERAGE, pixels)
        tensors, groups = _flatten_optimizer(state.optimizer)
        save_file(tensors, temporary / _OPTIMIZER)
        facts = {
            "format": FORMAT,
            "step": step,
            **description,
            "optimizer_groups": groups,
            "scaler": state.scaler.state_dict(),
            "versions": {name: version(name) for name in ("vertebra", "torch", "torchvision")},
        }
        (temporary / _STATE).write_text(json.dumps(facts, indent=1, default=asdict))
        names = sorted(path.name for path in temporary.iterdir())
        (temporary / _SUMS).write_text("".join(f"{_sha256(temporary / name)}  {name}\n" for name in names))
        for name in (*names, _SUMS, "."):
            _sync(temporary / name)
        temporary.rename(target)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"could not be written: {error}", "free some space; earlier checkpoints are intact", file=target
        ) from error
    return target


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints and the best one, and what a killed save left behind."""
    best = (folder / BEST).resolve()
    old = [path for path in checkpoint_paths(folder)[:-keep] if path.resolve() != best]
    for path in [*old, *folder.glob(".writing-*")]:
        shutil.rmtree(path, ignore_errors=True)


def mark_best(folder: Path, step: int) -> None:
    """Let the link ``folder/best`` lead to the checkpoint of a step."""
    link, temporary = folder / BEST, folder / f".writing-{BEST}"
    if link.is_dir() and not link.is_symlink():  # a copy of the run in which the link became what it led to
        shutil.rmtree(link)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(_name(step))
    temporary.replace(link)


def set_damaged_aside(folder: Path, sound: Checkpoint) -> None:
    """Rename what is newer than the newest sound checkpoint: a resumed run writes those steps again."""
    for path in checkpoint_paths(folder):
        if path > sound.path:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def checkpoint_paths(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def open_checkpoint(path: str | os.PathLike[str], notify: Callable[[str], None] | None = None) -> Checkpoint:
    """The checkpoint at ``path``, or the newest sound one of the run folder at ``path``.

    Checksums are verified. Where a run's newest checkpoint is damaged, ``notify`` is told and the one before is taken.
    """
    path = Path(path)
    if (path / _STATE).exists():
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


def load_weights(checkpoint: Checkpoint, model: nn.Module, averaged: bool = False) -> None:
    """Put a checkpoint's weights into a model of the same parts: the last ones or, if it has them, the ``averaged``."""
    path = checkpoint.path / _AVERAGE
    if not averaged or not path.exists():
        path = checkpoint.path / _MODEL
    tensors = _load_tensors(path)
    if faults := state_dict_faults(tensors, model.state_dict()):
        fix = "build the model from the checkpoint's own config, or use an earlier checkpoint"
        raise CheckpointError(first_few(faults), fix, file=path)
    model.load_state_dict(tensors)


def load_state(checkpoint: Checkpoint, state: TrainingState) -> None:
    """Put all that a step changes, but for the model's weights, back as it was: momentum, averages, scales."""
    facts = json.loads((checkpoint.path / _STATE).read_text())
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _load_tensors(checkpoint.path / _OPTIMIZER).items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = tensor
    state.optimizer.load_state_dict({"state": moments, "param_groups": facts["optimizer_groups"]})
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(facts["scaler"])
    if state.average is not None:
        load_weights(checkpoint, state.average.model, averaged=True)


def load_model(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Model:
    """The trained model of a run folder or checkpoint, in evaluation mode; ``model.class_names`` names its labels."""
    return load_checkpoint_model(open_checkpoint(path), device)


def load_checkpoint_model(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> Model:
    """The same from a checkpoint that is open already."""
    names = {task: classes.names for task, classes in checkpoint.classes.items()}
    with refusals_as_usage_errors():
        model = build_model(checkpoint.config.model, names)
    load_weights(checkpoint, model, averaged=True)
    return model.to(device).eval()


def _read(path: Path) -> Checkpoint:
    """A checkpoint's description, once its files are known to be whole."""
    state_path = path / _STATE
    try:
        lines = (path / _SUMS).read_text().splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        for name in {_MODEL, _OPTIMIZER, _STATE, *sums}:
            if _sha256(path / name) != sums[name]:
                raise CheckpointError("the file is damaged (checksum mismatch)", "use another copy", file=path / name)
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


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read: {error}", "use another checkpoint", file=path) from error


def _name(step: int) -> str:
    return f"step-{step:07d}"


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
