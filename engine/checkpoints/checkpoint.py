"""Checkpoints: a folder of safetensors and JSON that describes itself, written whole or not at all."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...backbones import WeightsOrigin, weights_metadata
from ...structures import CheckpointError, Classes, UsageError
from ..config import ExperimentConfig, parse_config
from ..distributed.sharding import full_tensor
from ..loop.step import TrainingState
from .atomic_folder import add_file, read_checksums, verify_checksums, write_atomic_folder
from .series import checkpoint_path, checkpoint_paths, follow_best

FORMAT = 3
MODEL, OPTIMIZER, AVERAGE = "model.safetensors", "optimizer.safetensors", "average.safetensors"
STATE, SCORES = "state.json", "scores.json"
PACKAGES = ("vertebra", "torch", "torchvision", "timm", "safetensors")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's facts; the tensors stay in its folder until they are asked for."""

    path: Path
    step: int
    config: ExperimentConfig
    classes: Mapping[str, Classes]
    """What labels mean, by task."""
    image_id_digests: Mapping[str, str]
    """A sum of the image ids of ``train`` and of ``val``, in order: the same data has the same."""
    annotation_digests: Mapping[str, str]
    """And of their annotations; nothing where the checkpoint is of a version that had none."""
    origin: WeightsOrigin | None
    """Of the weights that the training began with; None where they were random."""
    versions: Mapping[str, str]
    saved_at: str
    """ISO 8601, UTC."""
    scores: Mapping[str, Any] | None
    """What ``eval.json`` held of this very step; None where it was not evaluated."""
    processes: int | None
    """How many trained together; None where a version wrote it that did not say."""
    device: str | None
    """``cpu`` or ``cuda``; None likewise."""
    pending_values: Mapping[str, Sequence[float]]
    """By name the numbers of the steps since the log's last record, which are to have a part in its next."""


def save_checkpoint(folder: Path, step: int, state: TrainingState, description: Mapping[str, Any]) -> Path:
    """Write ``folder/step-N``. A kill or a full disk at any moment leaves the earlier checkpoints as they were.

    ``description`` is of :class:`Checkpoint` what the state does not tell: config (dumped), classes, sums, origin and
    what is pending. The weights' file tells alone how they want their pixels, and their origin. All processes call
    this, which may each have a share of the weights, and the first one writes.
    """
    target = checkpoint_path(folder, step)
    tensors, groups = _tensors(state)
    if not state.processes.is_rank_zero:
        return target
    with write_atomic_folder(target) as writing:
        model, origin = state.model, description.get("origin")
        metadata = weights_metadata(model.preprocess.config, model.backbone.config, origin)
        for name, own in tensors.items():
            save_file(own, writing / name, {} if name == OPTIMIZER else metadata)
        facts = {
            "format": FORMAT,
            "step": step,
            **description,
            "processes": state.processes.count,
            "device": state.processes.device.type,
            "optimizer_groups": groups,
            "scaler": state.scaler.state_dict(),
            "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
            "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        (writing / STATE).write_text(json.dumps(facts, indent=1, default=asdict))
    return target


def add_scores(folder: Path, step: int, scores: str) -> None:
    """Put the scores of a step (JSON) beside its weights in ``folder/step-N``, unless they are there."""
    add_file(checkpoint_path(folder, step), SCORES, scores)


def open_checkpoint(path: str | os.PathLike[str], notify: Callable[[str], None] | None = None) -> Checkpoint:
    """The checkpoint at ``path``, or the newest sound one of the run folder at ``path``.

    Checksums are verified. Where a run's newest checkpoint is damaged, ``notify`` is told and the one before is taken.
    """
    path = follow_best(Path(path))
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
        state = json.loads(state_path.read_text())
        _require_format(state, state_path)
        verify_checksums(path, (MODEL, OPTIMIZER, STATE))
        classes = {task: Classes(tuple(own["names"]), tuple(own["ids"])) for task, own in state["classes"].items()}
        origin = state.get("origin")
        return Checkpoint(
            path,
            state["step"],
            parse_config(state["config"], str(state_path)),
            classes,
            image_id_digests=state["image_id_digests"],
            annotation_digests=state.get("annotation_digests", {}),
            origin=None if origin is None else WeightsOrigin(**origin),
            versions=state["versions"],
            saved_at=state.get("saved_at", ""),
            scores=json.loads((path / SCORES).read_text()) if SCORES in read_checksums(path) else None,
            processes=state.get("processes"),
            device=state.get("device"),
            pending_values=state.get("pending_values", {}),
        )
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise CheckpointError(f"cannot be read: {error!r}", "use another checkpoint", file=path) from error


def _require_format(state: Mapping[str, Any], path: Path) -> None:
    number = state["format"]
    if number == FORMAT:
        return
    fix = "upgrade vertebra"
    if number < FORMAT:
        fix = f"load it with vertebra {state['versions']['vertebra']}, which wrote it, or train anew"
    raise CheckpointError(f"has format {number}, this version reads {FORMAT}", fix, file=path)


def _tensors(state: TrainingState) -> tuple[dict[str, dict[str, Tensor]], list[dict[str, Any]]]:
    """What each file holds, on the first process, and the optimiser's groups, which are plain JSON. Its tensors go by
    ``parameter.key``."""
    models = {MODEL: state.model} | ({} if state.average is None else {AVERAGE: state.average.model})
    tensors = {name: model.state_dict() for name, model in models.items()}
    optimizer = state.optimizer.state_dict()
    tensors[OPTIMIZER] = {
        f"{index}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in optimizer["state"].items()
        for key, value in values.items()
        if value is not None
    }
    kept = state.processes.is_rank_zero
    return {name: _whole(own, kept) for name, own in tensors.items()}, optimizer["param_groups"]


def _whole(tensors: Mapping[str, Tensor], kept: bool) -> dict[str, Tensor]:
    """The tensors without shares, on the CPU: a device may not have room for all of them. Nothing where they are not
    ``kept``."""
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = full_tensor(tensor.detach())
        if kept:
            whole[name] = tensor.cpu().contiguous()
    return whole
