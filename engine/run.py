"""A run from where it starts: new or resumed, its data opened, its model built, its state as after the last step.

When a run is resumed, the groups of its config that are named in ``FREE_ON_RESUME`` may differ; the others decide its
numbers.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..backbones import WeightsOrigin, load_backbone_weights, weights_origin
from ..data import Dataset, build_dataset, require_same_classes
from ..formats import write_json
from ..inference import Checkpoint, checkpoint_paths, load_checkpoint_model, load_weights, open_checkpoint
from ..inference.checkpoint import OPTIMIZER, STATE, read_tensors
from ..models import Model, build_model, resolve_input, transfer_weights
from ..structures import UsageError, value_errors_as_usage_errors
from .checkpoint_writer import rename_damaged_checkpoints
from .config import ExperimentConfig, SplitConfig, experiment_config
from .distributed.context import DistributedContext
from .distributed.sharding import shard_like
from .loop.step import TrainingState, seed_step
from .run_folder import RunFolder
from .tasks import Task, pick_task, require_targets
from .user_code import store_user_code

Say = Callable[[str], None]

FREE_ON_RESUME = ("name", "evaluation", "run")


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What a run begins with or goes on from; rank zero determines it for all."""

    config: ExperimentConfig
    """The resolved config: with the input that the weights want."""
    user_modules: Mapping[str, str]
    """The user's modules that parts of the config are defined in, by name, each with its file."""
    resumed: Checkpoint | None = None
    """The run's newest sound checkpoint, if it is resumed and has one."""
    source: Checkpoint | None = None
    """The checkpoint that ``start_from`` names, for a new run that has it."""

    @property
    def step(self) -> int:
        """The last step that was taken."""
        return 0 if self.resumed is None else self.resumed.step

    def origin(self) -> WeightsOrigin | None:
        """Return where the weights come from that the run began with; None where they were random."""
        model = self.config.model
        if self.resumed is not None:
            return self.resumed.origin
        if self.source is not None:
            path, before = str(self.source.path), self.source.origin
            return WeightsOrigin(path) if before is None else before.trained_further(path)
        return None if model.weights is None else weights_origin(model.weights, model.backbone.name)


def find_starting_point(folder: RunFolder, config: ExperimentConfig, resume: bool, say: Say) -> StartingPoint:
    """Begin a new run, or go on with the one in the folder; store the resolved config and the user's modules.

    Raises UsageError where a new run finds another in the folder, or a resumed one finds none or one of other numbers.
    """
    has_checkpoint = bool(checkpoint_paths(folder.checkpoints))
    if not resume and (has_checkpoint or folder.metrics.exists()):
        fix = "continue it with --resume, or choose another --output"
        raise UsageError("this folder holds a run already", fix, file=folder.path)
    if resume and not has_checkpoint:
        if not folder.config.exists():
            fix = "check --output, or leave out --resume"
            raise UsageError("there is no run here to resume", fix, file=folder.path)
        say(f"{folder.path}: there is no checkpoint yet, so the run begins anew, with this config")
    resumed = open_checkpoint(folder.path, say) if has_checkpoint else None
    source = None
    if resumed is not None:
        config = _require_same_numbers(resumed, config, folder.path)
        # The file that the run's weights came from is not needed again.
        rename_damaged_checkpoints(folder.checkpoints, resumed.path)
    else:
        source = None if config.model.start_from is None else open_checkpoint(config.model.start_from)
        if source is None or config.model.input is not None:
            model = resolve_input(config.model)
        else:
            model = config.model.replace(input=source.inference_config().model.input)
        config = config.replace(model=model)
    write_json(folder.config, config.model_dump(mode="json"))  # from here on it is data and runs no code
    return StartingPoint(config, store_user_code(config, folder.path), resumed, source)


def _require_same_numbers(checkpoint: Checkpoint, config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """Return the config that a run is resumed with; UsageError where it would give other numbers."""
    before = experiment_config(checkpoint)
    if config.model.input is None:
        config = config.replace(model={"input": before.model.input})
    changes = config_changes(before.model_dump(mode="json"), config.model_dump(mode="json"))
    refused = {key: pair for key, pair in sorted(changes.items()) if key.split(".")[0] not in FREE_ON_RESUME}
    if refused:
        shown = ", ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in refused.items())
        raise UsageError(
            f"the config differs from the run's: {shown}", "resume with the same, or start anew", file=folder
        )
    return config


def config_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the (old, new) values of the fields in which two dumped configs differ, by dotted path."""
    changes: dict[str, tuple[Any, Any]] = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes |= config_changes(before, after, f"{prefix}{key}.")
        elif before != after:
            changes[f"{prefix}{key}"] = (before, after)
    return changes


@dataclass(frozen=True, slots=True)
class Run:
    """An experiment with its data open, its model built and its state as after the last step that was taken."""

    config: ExperimentConfig
    folder: RunFolder
    distributed: DistributedContext
    train_set: Dataset
    val_set: Dataset
    task: Task
    state: TrainingState
    description: Mapping[str, Any]
    """What its checkpoints say of it beside their step."""


def open_run(start: StartingPoint, folder: RunFolder, distributed: DistributedContext, say: Say) -> Run:
    """Return the run at its starting point; UsageError or DataError where something does not fit."""
    config = start.config
    with distributed.fail_together():
        _require_even_shards(config, distributed.world_size)
        train_set, val_set = _open_data(config, folder.path if distributed.is_rank_zero else None, say)
        data = describe_data(train_set, val_set)
        if start.resumed is not None:
            require_same_processes(start.resumed, distributed.world_size)
            require_same_data(start.resumed, data)
        model = _build_model(start, train_set, say).to(distributed.device).train()
        task = pick_task(model.head, val_set.classes)  # results have the ids of the data that is evaluated
    with distributed.fail_together():  # apart from the above: all ranks get here, and a config fails on all or none
        state = TrainingState.create(model, config, distributed)
    if start.resumed is not None:
        load_state(start.resumed, state, say)
    description = {
        "config": config.model_dump(mode="json"),
        "inference": config.inference().model_dump(mode="json"),
        "origin": start.origin(),
        "user_modules": start.user_modules,
        **data,
    }
    return Run(config, folder, distributed, train_set, val_set, task, state, description)


def _require_even_shards(config: ExperimentConfig, world_size: int) -> None:
    micro_batches = world_size * config.recipe.accumulate
    if config.recipe.batch_size % micro_batches:
        raise UsageError(
            f"batch_size {config.recipe.batch_size} cannot be shared out evenly to {world_size} processes, "
            f"accumulate {config.recipe.accumulate}",
            f"choose a multiple of {micro_batches}: it is the images of a whole step",
        )


def _open_data(config: ExperimentConfig, folder: Path | None, say: Say) -> tuple[Dataset, Dataset]:
    """Return the training and the validation data, validated; a report of each is written to ``folder``."""
    train_set = _open_split(config.train, "train", folder and folder / "data_report.json", say)
    val_set = _open_split(config.val, "val", folder and folder / "data_report_val.json", say)
    require_same_classes(train_set.classes, val_set.classes)
    for dataset in (train_set, val_set):
        require_targets(config.model.head, dataset)
    return train_set, val_set


def _open_split(split: SplitConfig, name: str, report: Path | None, say: Say) -> Dataset:
    dataset = build_dataset(split.dataset, split.bad_data)
    if report is not None:
        dataset.report.write(report)
    say(f"{name}: {dataset.report.summary()}")
    return dataset


def _build_model(start: StartingPoint, train_set: Dataset, say: Say) -> Model:
    """Return the model with the weights that the run begins with or goes on from."""
    config = start.config
    seed_step(config.recipe.seed, 0)
    with value_errors_as_usage_errors():
        names = {task: classes.names for task, classes in train_set.classes.items()}
        model = build_model(config.model, names)
    if start.resumed is not None:
        load_weights(start.resumed, model)
    elif config.model.weights is not None:
        say(load_backbone_weights(model.backbone, config.model.weights))
    elif start.source is not None:
        say(f"{start.source.path}: {transfer_weights(model, load_checkpoint_model(start.source))}")
    return model


def load_state(checkpoint: Checkpoint, state: TrainingState, say: Say) -> None:
    """Restore all that a step changes beside the model's weights: momentum, averages, scales."""
    device = state.distributed.device.type
    if checkpoint.device != device:
        say(f"the run was trained on {checkpoint.device}, this is {device}: it goes on, but not to the same bits")
    facts = json.loads((checkpoint.path / STATE).read_text(encoding="utf-8"))
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(checkpoint.path / OPTIMIZER).items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = shard_like(tensor, parameters[int(index)])
    state.optimizer.load_state_dict({"state": moments, "param_groups": facts["optimizer_groups"]})
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(facts["scaler"])
    if state.average is not None:
        load_weights(checkpoint, state.average.model, averaged=True, convert=shard_like)


def describe_data(train: Dataset, val: Dataset) -> dict[str, Any]:
    """Return what a checkpoint keeps of the data: classes, and digests of image ids and annotations."""
    ids = {
        split: hashlib.sha256("\n".join(map(str, dataset.image_ids)).encode(errors="surrogateescape")).hexdigest()
        for split, dataset in (("train", train), ("val", val))
    }
    annotations = {split: dataset.annotation_digest() for split, dataset in (("train", train), ("val", val))}
    return {"classes": train.classes, "image_id_digests": ids, "annotation_digests": annotations}


def require_same_data(checkpoint: Checkpoint, data: Mapping[str, Any]) -> None:
    """Raise UsageError where ``data``, from :func:`describe_data`, is not what the checkpoint was trained on."""
    require_same_classes(checkpoint.classes, data["classes"], ("the run", "the data"))
    changed = [
        f"{split} {what}"
        for what, before, now in (
            ("image ids", checkpoint.image_id_digests, data["image_id_digests"]),
            ("annotations", checkpoint.annotation_digests, data["annotation_digests"]),
        )
        for split in before
        if before[split] != now[split]
    ]
    if checkpoint.classes != data["classes"]:
        changed.append("category ids")
    if changed:
        raise UsageError(
            f"the {' and the '.join(changed)} are no longer those that the run began with",
            "resume with the same data, or start anew",
        )


def require_same_processes(checkpoint: Checkpoint, world_size: int) -> None:
    """Raise UsageError where a run is resumed by another number of processes.

    Sums in another order round differently, and batch norms would see other shards of a batch.
    """
    before = checkpoint.world_size
    if before != world_size:
        raise UsageError(
            f"the run was trained by {before} processes, this is {world_size}: it would not go on exactly",
            f"resume with {before}",
        )
