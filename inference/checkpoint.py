"""Reading of checkpoints, which are self-describing folders of safetensors and JSON files, and of their models.

Loading a checkpoint runs no code from it, since it contains only tensors and plain values. Custom parts must be
registered before a model with them is built: see :func:`vertebra.inference.import_user_code`.
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
from ..heads import task_of_head
from ..models import DetectionInference, Model, ModelConfig, SemanticInference, ViewConfig, build_model
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

FORMAT = 4
MODEL, OPTIMIZER, AVERAGE = "model.safetensors", "optimizer.safetensors", "average.safetensors"
STATE, SCORES, CHECKSUMS = "state.json", "scores.json", "SHA256SUMS"
BEST = "best"
"""A symbolic link to the best checkpoint of a run or, on a system without links, a text file with its name."""
USER_CODE = "code"
"""The folder below a run folder with copies of the user's modules."""


class InferenceConfig(Config):
    """The parts of an experiment's config that inference needs: the model, and how images are prepared for it."""

    model: ModelConfig
    preprocessing: ImagePreprocessing | None = None
    """The preprocessing of the validation images; None if the validation transform is random or custom."""
    semantic: SemanticInference = SemanticInference()
    """How a semantic head predicts an image: as a whole or by windows, at which scales."""
    detection: DetectionInference = DetectionInference()
    """How a detector predicts an image: at which scales, and whether flipped too."""
    batch_size: PositiveInt = 1
    """Number of images to predict together."""
    precision: Literal["fp32", "tf32"] = "fp32"
    """Precision of float32 matrix products on a GPU, see ``Precision``."""
    deterministic: bool = False
    """Use only deterministic kernels."""

    @property
    def views(self) -> ViewConfig:
        """How the model of this config predicts an image."""
        return self.detection if task_of_head(self.model.head.name) == "detection" else self.semantic


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The metadata of a checkpoint; the tensors are read from its folder when they are needed."""

    path: Path
    """The folder of the checkpoint."""
    step: int
    """The number of training steps that were completed."""
    config: Mapping[str, Any]
    """The config of the experiment as JSON values; :func:`vertebra.engine.experiment_config` validates it."""
    inference: Mapping[str, Any]
    """An :class:`InferenceConfig` as JSON values; :meth:`inference_config` validates it."""
    classes: Mapping[str, Classes]
    """The classes of the labels, by task."""
    image_id_digests: Mapping[str, str]
    """Digests of the image ids, in order, of the data sets ``train`` and ``val``."""
    annotation_digests: Mapping[str, str]
    """Digests of the annotations of the data sets ``train`` and ``val``."""
    origin: WeightsOrigin | None
    """The source of the initial weights of the training; None if they were random."""
    versions: Mapping[str, str]
    """The versions of the packages that wrote the checkpoint, by package name."""
    saved_at: str
    """The time of saving in ISO 8601, UTC."""
    scores: Mapping[str, Any] | None
    """The evaluation scores of this step, as in ``eval.json``; None if this step was not evaluated."""
    world_size: int
    """The number of processes of the training."""
    device: str
    """The device type of the training: ``cpu`` or ``cuda``."""
    pending_values: Mapping[str, Sequence[float]]
    """The logged values of the steps since the last log record, by name; the next record averages them."""
    user_modules: Mapping[str, str]
    """The user's modules that define parts of the experiment: their file names, by module name."""

    def inference_config(self) -> InferenceConfig:
        """Return the validated inference config; raise CheckpointError if it is invalid or a part is not registered."""
        try:
            return InferenceConfig.model_validate(self.inference)
        except ValidationError as error:
            raise self.config_error(usage_error_from_validation("inference", error)) from None
        except UsageError as error:
            raise self.config_error(error) from None

    def config_error(self, error: UsageError) -> CheckpointError:
        """Convert an error in the checkpoint's config to a CheckpointError that names the user modules to import."""
        fix = "use another checkpoint"
        if self.user_modules:
            options = " ".join(self._import_option(name) for name in self.user_modules)
            fix = f"the run has custom code, which is imported only if it is named: add {options} (imports= in Python)"
        what = f"{error.what}; {error.fix}" if error.fix else error.what
        return CheckpointError(what, fix, file=self.path / STATE)

    def _import_option(self, name: str) -> str:
        """Return the command-line option that imports a user module, from its copy in the run folder if it exists."""
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
    """Return the path of the checkpoint that a text file ``best`` names; return any other path unchanged."""
    return path.with_name(path.read_text(encoding="utf-8").strip()) if path.name == BEST and path.is_file() else path


def open_checkpoint(path: str | os.PathLike[str], notify: Callable[[str], None] | None = None) -> Checkpoint:
    """Read a checkpoint and verify its checksums; for a run folder, read its newest undamaged checkpoint.

    ``notify`` is called with a message for each damaged checkpoint that is skipped. Raises CheckpointError if there is
    no checkpoint, or none that can be read.
    """
    path = follow_best(Path(path).expanduser())
    if (path / STATE).exists():
        return _read(path)
    paths = checkpoint_paths(path / "checkpoints") or checkpoint_paths(path)
    if not paths:
        raise CheckpointError(
            "there is no checkpoint here",
            "give a run folder, one of its checkpoints, or a name from `vertebra list models`",
            file=path,
        )
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
    """Verify the files of a checkpoint and return its metadata; raise CheckpointError if that fails."""
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
            {task: Classes.from_json(values) for task, values in state["classes"].items()},
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
        fix = f"load it with vertebra {state['versions']['vertebra']}, which wrote it, or train again"
    raise CheckpointError(f"has format {number}, this version reads {FORMAT}", fix, file=path)


def read_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 digests in the file ``SHA256SUMS`` of a folder, by file name."""
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def verify_checksums(folder: Path, required: Iterable[str]) -> None:
    """Raise CheckpointError if a file of the folder is damaged, and KeyError if a ``required`` file has no checksum."""
    sums = read_checksums(folder)
    for name in {*required, *sums}:
        if sha256_of_file(folder / name) != sums[name]:
            raise CheckpointError("the file is damaged (checksum mismatch)", "use another copy", file=folder / name)


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; raise CheckpointError if it cannot be read."""
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
    """Load the weights of a checkpoint into a model with the same parts; raise CheckpointError if they do not fit.

    ``averaged`` loads the exponential moving average of the weights if the checkpoint has one. ``convert`` is called
    with each tensor of the checkpoint and the model's tensor of that name, and returns the tensor to load; for a
    sharded model, this is the local shard.
    """
    path = checkpoint.path / AVERAGE
    if not averaged or not path.exists():
        path = checkpoint.path / MODEL
    tensors, current = read_tensors(path), model.state_dict()
    if problems := state_dict_problems(tensors, current):
        fix = "build the model from the checkpoint's own config, or use an earlier checkpoint"
        raise CheckpointError(join_first(problems), fix, file=path)
    model.load_state_dict({name: convert(tensor, current[name]) for name, tensor in tensors.items()})


def load_checkpoint_model(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> Model:
    """Build the model of an open checkpoint, load its weights (the averaged ones if there are any) and return it.

    The model is in evaluation mode.
    """
    names = {task: classes.names for task, classes in checkpoint.classes.items()}
    with value_errors_as_usage_errors():
        model = build_model(checkpoint.inference_config().model, names)
    load_weights(checkpoint, model, averaged=True)
    return model.to(pick_device(device)).eval()
