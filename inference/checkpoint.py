"""Reading checkpoints: folders of safetensors and JSON that describe themselves, and the models that are in them.

A checkpoint runs no code: it holds tensors and plain values. Parts that a user wrote must be registered before a model
with them is built: see :func:`vertebra.inference.import_user_code`.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..backbones import WeightsOrigin
from ..models import Model, ModelConfig, SemanticInference, build_model
from ..ops import join_first, state_dict_problems
from ..structures import (
    CheckpointError,
    Classes,
    Config,
    ImagePreprocessing,
    UsageError,
    pick_device,
    usage_error_from_validation,
    value_errors_as_usage_errors,
)
from .user_code import import_user_code

FORMAT = 4
MODEL, OPTIMIZER, AVERAGE = "model.safetensors", "optimizer.safetensors", "average.safetensors"
STATE, SCORES, CHECKSUMS = "state.json", "scores.json", "SHA256SUMS"
BEST = "best"
"""A link to a run's best checkpoint or, on a system without links, a text file with its name."""
USER_CODE = "code"
"""The folder of a run that holds copies of its user's modules."""


class InferenceConfig(Config):
    """The parts of an experiment's config that prediction needs: the model, and how it gets its images."""

    model: ModelConfig
    preprocessing: ImagePreprocessing | None = None
    """None where the validation transform draws at random or has no such form."""
    semantic: SemanticInference = SemanticInference()
    """How a semantic head predicts an image."""
    batch_size: PositiveInt = 1
    """Images that are predicted together."""
    precision: Literal["fp32", "tf32"] = "fp32"
    """Arithmetic of float32 products."""
    deterministic: bool = False
    """Use deterministic kernels only."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The facts of a checkpoint as plain values; its tensors stay in its folder until they are asked for."""

    path: Path
    step: int
    config: Mapping[str, Any]
    """The config of the experiment as JSON has it; :func:`vertebra.engine.experiment_config` validates it."""
    inference: Mapping[str, Any]
    """An :class:`InferenceConfig` as JSON has it; :meth:`inference_config` validates it."""
    classes: Mapping[str, Classes]
    """What labels mean, by the task of the data set that they come from."""
    image_id_digests: Mapping[str, str]
    """A digest of the image ids of ``train`` and of ``val``, in order."""
    annotation_digests: Mapping[str, str]
    """A digest of the annotations of ``train`` and of ``val``."""
    origin: WeightsOrigin | None
    """Where the weights came from that the training began with; None where they were random."""
    versions: Mapping[str, str]
    """The versions of the packages that it was made with."""
    saved_at: str
    """ISO 8601, UTC."""
    scores: Mapping[str, Any] | None
    """What ``eval.json`` held of this very step; None where it was not evaluated."""
    world_size: int
    """How many processes trained together."""
    device: str
    """The type of device that they trained on: ``cpu``, ``cuda``."""
    pending_values: Mapping[str, Sequence[float]]
    """By name the numbers of the steps since the log's last record, which the next record averages."""
    user_modules: Mapping[str, str]
    """The user's modules that parts of the experiment are defined in, by name, each with its file."""

    def inference_config(self) -> InferenceConfig:
        """Return what prediction needs; CheckpointError for a part that is not registered."""
        try:
            return InferenceConfig.model_validate(self.inference)
        except ValidationError as error:
            raise self.config_error(usage_error_from_validation("inference", error)) from None
        except UsageError as error:
            raise self.config_error(error) from None

    def config_error(self, error: UsageError) -> CheckpointError:
        """Return what is wrong with the checkpoint's config, and which of the user's modules it may need."""
        fix = "use another checkpoint"
        if self.user_modules:
            options = " ".join(self._import_option(name) for name in self.user_modules)
            fix = (
                f"the run has code of its user's, which runs only where it is named: add {options} (imports= in Python)"
            )
        what = f"{error.what}; {error.fix}" if error.fix else error.what
        return CheckpointError(what, fix, file=self.path / STATE)

    def _import_option(self, name: str) -> str:
        """Return the option that imports one of the user's modules: the copy in the run folder, if there is one."""
        code = self.path.parent.parent / USER_CODE
        copy = code / self.user_modules[name]
        if not copy.is_file():
            return f"--import {self.user_modules[name]}"
        return f"--import {name} with PYTHONPATH={code}" if "." in name else f"--import {copy}"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return folder / f"step-{step:07d}"


def checkpoint_paths(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def follow_best(path: Path) -> Path:
    """Return the checkpoint that a text file called ``best`` names; any other path as it is."""
    return path.with_name(path.read_text(encoding="utf-8").strip()) if path.name == BEST and path.is_file() else path


def open_checkpoint(path: str | os.PathLike[str], notify: Callable[[str], None] | None = None) -> Checkpoint:
    """Read the checkpoint at ``path``, or the newest sound one of the run folder at ``path``, and verify its checksums.

    ``notify`` gets a line for a damaged checkpoint that is passed over for the one before.
    """
    path = follow_best(Path(path).expanduser())
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
    """Return the facts of a checkpoint once its files are verified."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        _require_format(state, path / STATE)
        verify_checksums(path, (MODEL, OPTIMIZER, STATE))
        scores = (path / SCORES).read_text(encoding="utf-8") if SCORES in read_checksums(path) else "null"
        origin = state["origin"]
        return Checkpoint(
            path,
            state["step"],
            state["config"],
            state["inference"],
            {task: Classes(tuple(named["names"]), tuple(named["ids"])) for task, named in state["classes"].items()},
            image_id_digests=state["image_id_digests"],
            annotation_digests=state["annotation_digests"],
            origin=None if origin is None else WeightsOrigin(**origin),
            versions=state["versions"],
            saved_at=state["saved_at"],
            scores=json.loads(scores),
            world_size=state["world_size"],
            device=state["device"],
            pending_values=state["pending_values"],
            user_modules=state["user_modules"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot be read: {error!r}", "use another checkpoint", file=path) from error


def _require_format(state: Mapping[str, Any], path: Path) -> None:
    number = state["format"]
    if number == FORMAT:
        return
    fix = "upgrade vertebra"
    if number < FORMAT:
        fix = f"load it with vertebra {state['versions']['vertebra']}, which wrote it, or train anew"
    raise CheckpointError(f"has format {number}, this version reads {FORMAT}", fix, file=path)


def read_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 sums in a folder's ``SHA256SUMS``, by file name."""
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def verify_checksums(folder: Path, required: Iterable[str]) -> None:
    """Raise CheckpointError for a file that is damaged; KeyError where one of the ``required`` has no checksum."""
    sums = read_checksums(folder)
    for name in {*required, *sums}:
        if sha256_of_file(folder / name) != sums[name]:
            raise CheckpointError("the file is damaged (checksum mismatch)", "use another copy", file=folder / name)


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 sum of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; CheckpointError where it cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read: {error}", "use another checkpoint", file=path) from error


def load_weights(
    checkpoint: Checkpoint,
    model: nn.Module,
    averaged: bool = False,
    convert: Callable[[Tensor, Tensor], Tensor] = lambda tensor, parameter: tensor,
) -> None:
    """Load a checkpoint's weights into a model of the same parts; CheckpointError where they do not fit.

    ``averaged`` takes the moving average of the weights, if the checkpoint has one, and otherwise the last weights.
    ``convert`` gets a tensor and the model's, and returns what is loaded: the shard of a sharded model, for one.
    """
    path = checkpoint.path / AVERAGE
    if not averaged or not path.exists():
        path = checkpoint.path / MODEL
    tensors, current = read_tensors(path), model.state_dict()
    if problems := state_dict_problems(tensors, current):
        fix = "build the model from the checkpoint's own config, or use an earlier checkpoint"
        raise CheckpointError(join_first(problems), fix, file=path)
    model.load_state_dict({name: convert(tensor, current[name]) for name, tensor in tensors.items()})


def load_model(
    path: str | os.PathLike[str],
    device: torch.device | str = "auto",
    *,
    imports: Sequence[str | os.PathLike[str]] = (),
) -> Model:
    """Return the trained model of a run folder or checkpoint, in evaluation mode.

    ``model.class_names`` names its labels. ``imports`` are modules or Python files with parts of your own, which are
    imported first.
    """
    for name in imports:
        import_user_code(name)
    return load_checkpoint_model(open_checkpoint(path), device)


def load_checkpoint_model(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> Model:
    """Return the trained model of an open checkpoint, in evaluation mode."""
    names = {task: classes.names for task, classes in checkpoint.classes.items()}
    with value_errors_as_usage_errors():
        model = build_model(checkpoint.inference_config().model, names)
    load_weights(checkpoint, model, averaged=True)
    return model.to(pick_device(device)).eval()
