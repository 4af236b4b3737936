"""What a checkpoint holds, put back: into a model, into a training, or as a model of its own."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...models import Model, build_model
from ...ops import join_first, state_dict_problems
from ...structures import CheckpointError, pick_device, value_errors_as_usage_errors
from ..distributed.sharding import shard_like
from ..loop.step import TrainingState
from .checkpoint import AVERAGE, MODEL, OPTIMIZER, STATE, Checkpoint, open_checkpoint


def load_weights(checkpoint: Checkpoint, model: nn.Module, averaged: bool = False) -> None:
    """Put a checkpoint's weights into a model of the same parts: the last ones or, if it has them, the ``averaged``."""
    path = checkpoint.path / AVERAGE
    if not averaged or not path.exists():
        path = checkpoint.path / MODEL
    tensors = _load_tensors(path)
    own = model.state_dict()
    if faults := state_dict_problems(tensors, own):
        fix = "build the model from the checkpoint's own config, or use an earlier checkpoint"
        raise CheckpointError(join_first(faults), fix, file=path)
    model.load_state_dict({name: shard_like(tensor, own[name]) for name, tensor in tensors.items()})


def load_state(checkpoint: Checkpoint, state: TrainingState, notify: Callable[[str], None]) -> None:
    """Put all that a step changes, but for the model's weights, back as it was: momentum, averages, scales.

    ``notify`` is told where it was trained on another kind of device.
    """
    now = state.processes.device.type
    if checkpoint.device not in (None, now):
        notify(f"the run was trained on {checkpoint.device}, this is {now}: it goes on, but not to the same bits")
    facts = json.loads((checkpoint.path / STATE).read_text())
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _load_tensors(checkpoint.path / OPTIMIZER).items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = shard_like(tensor, parameters[int(index)])
    state.optimizer.load_state_dict({"state": moments, "param_groups": facts["optimizer_groups"]})
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(facts["scaler"])
    if state.average is not None:
        load_weights(checkpoint, state.average.model, averaged=True)


def load_model(path: str | os.PathLike[str], device: torch.device | str = "auto") -> Model:
    """The trained model of a run folder or checkpoint, in evaluation mode; ``model.class_names`` names its labels."""
    return load_checkpoint_model(open_checkpoint(path), device)


def load_checkpoint_model(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> Model:
    """The same from a checkpoint that is open already."""
    names = {task: classes.names for task, classes in checkpoint.classes.items()}
    with value_errors_as_usage_errors():
        model = build_model(checkpoint.config.model, names)
    load_weights(checkpoint, model, averaged=True)
    return model.to(pick_device(device)).eval()


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read: {error}", "use another checkpoint", file=path) from error
