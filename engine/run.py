"""Starting or resuming a run: check the config and the checkpoint, open the data, build the model."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..backbones import WeightsOrigin, load_backbone_weights, weights_origin
from ..data import Dataset, build_dataset, require_objects, require_same_classes, warn_without_objects
from ..formats import write_json
from ..inference import Checkpoint, TrainedModel, checkpoint_paths, open_checkpoint, open_model
from ..models import Model, ModelConfig, build_model, resolve_input, transfer_weights
from ..ops import join_first
from ..structures import UsageError, value_errors_as_usage_errors
from .checkpoints import rename_damaged_checkpoints
from .config import ExperimentConfig, SplitConfig, experiment_config
from .distributed.context import DistributedContext
from .loop.step import seed_step
from .run_folder import RunFolder
from .tasks import Task, pick_task, require_classes, require_keypoint_sigmas, require_targets
from .user_code import store_user_code

Say = Callable[[str], None]

CHANGEABLE_ON_RESUME = ("name", "evaluation", "run")
"""Config groups that may change when a run is resumed; the others determine the trained weights."""


WITHOUT_INFLUENCE = ("weights", "start_from", "start_from_like", "backbone.freeze_at")
"""Fields of a model's config that do not change its predictions."""


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """The config and the checkpoint that a run starts or resumes from; rank zero determines it for all ranks."""

    config: ExperimentConfig
    """The resolved config: ``model.input`` is the preprocessing of the initial weights, and the recipe has no ``auto``.
    """
    description: Mapping[str, Any]
    """Facts for every checkpoint of the run: config, inference config, origin of the weights, user modules."""
    resumed: Checkpoint | None = None
    """The newest valid checkpoint of the run, if it is resumed and has one."""
    source: TrainedModel | None = None
    """The trained model that ``model.start_from`` names, in a new run."""

    @property
    def step(self) -> int:
        """The last step already taken; 0 in a new run."""
        return 0 if self.resumed is None else self.resumed.step


def find_starting_point(
    folder: RunFolder, config: ExperimentConfig, resume: bool, say: Say, device: torch.device
) -> StartingPoint:
    """Find out where a run starts or resumes, and store its resolved config and the user's modules in its folder.

    Fields of the recipe that are ``auto`` are set for the device or, in a resumed run, as they were.

    Raises UsageError if a new run would overwrite another run, if there is no run to resume, or if the config differs
    from that of the resumed run in a group that determines the weights.
    """
    has_checkpoint = bool(checkpoint_paths(folder.checkpoints))
    if not resume:
        folder.require_unused()
    if resume and not has_checkpoint:
        if not folder.config.exists():
            fix = "check --output, or leave out --resume"
            raise UsageError("there is no run here to resume", fix, file=folder.path)
        say(f"{folder.path}: there is no checkpoint yet, so the run starts from step 0, with this config")
    resumed = open_checkpoint(folder.path, say) if has_checkpoint else None
    source = None
    if resumed is not None:
        # The pretrained weights or start_from checkpoint of the original run need not exist any more.
        config = _resumed_config(resumed, config, folder.path)
        rename_damaged_checkpoints(folder.checkpoints, resumed.path)
    else:
        if config.model.start_from is not None:
            source = open_model(config.model.start_from, config.model.start_from_like)
        if source is None or config.model.input is not None:
            model = resolve_input(config.model)
        else:
            model = config.model.replace(input=source.inference.model.input)
        config = config.replace(model=model, recipe=config.recipe.resolve(device))
    description = {
        "config": config.model_dump(mode="json"),
        "inference": config.inference().model_dump(mode="json"),
        "origin": _find_origin(config, resumed, source),
        "user_modules": store_user_code(config, folder.path),
    }
    write_json(folder.config, description["config"])  # as JSON: reading it later runs no code
    return StartingPoint(config, description, resumed, source)


def _find_origin(
    config: ExperimentConfig, resumed: Checkpoint | None, source: TrainedModel | None
) -> WeightsOrigin | None:
    """Return the origin of the run's initial weights; None if they were random."""
    if resumed is not None:
        return resumed.origin
    if source is not None:
        return source.origin
    model = config.model
    return None if model.weights is None else weights_origin(model.weights, model.backbone.name)


def _resumed_config(checkpoint: Checkpoint, config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """Return the config to resume a run with: ``config``, with the checkpoint's values for None and ``auto``.

    Raises UsageError if it differs from the checkpoint's outside ``CHANGEABLE_ON_RESUME``.
    """
    stored = experiment_config(checkpoint)
    if config.model.input is None:
        config = config.replace(model={"input": stored.model.input})
    automatic = [name for name in ("precision", "channels_last") if getattr(config.recipe, name) == "auto"]
    config = config.replace(recipe={name: getattr(stored.recipe, name) for name in automatic})
    changes = config_changes(stored.model_dump(mode="json"), config.model_dump(mode="json"))
    refused = {key: pair for key, pair in sorted(changes.items()) if key.split(".")[0] not in CHANGEABLE_ON_RESUME}
    if refused:
        shown = ", ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in refused.items())
        raise UsageError(
            f"the config differs from the run's: {shown}",
            "resume with the same config, or start a new run from this one's model with another --output and "
            f"--set model.start_from={folder}",
            file=folder,
        )
    return config


def config_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two dumped configs differ: (old value, new value) by dotted path."""
    changes: dict[str, tuple[Any, Any]] = {}
    for key in old.keys() | new.keys():
        old_value, new_value = old.get(key), new.get(key)
        if isinstance(old_value, Mapping) and isinstance(new_value, Mapping):
            changes |= config_changes(old_value, new_value, f"{prefix}{key}.")
        elif old_value != new_value:
            changes[f"{prefix}{key}"] = (old_value, new_value)
    return changes


def describe_model_changes(old: ModelConfig, new: ModelConfig) -> str | None:
    """List the settings in which a model differs from another, as text; None if there are none.

    Fields that have no influence on predictions, such as the number of frozen stages, are left out.
    """
    changes = config_changes(old.model_dump(mode="json"), new.model_dump(mode="json"))
    relevant = {key: pair for key, pair in sorted(changes.items()) if key not in WITHOUT_INFLUENCE}
    return join_first([f"{key}={value!r} (was {former!r})" for key, (former, value) in relevant.items()]) or None


@dataclass(frozen=True, slots=True)
class Run:
    """An experiment with its data open and its model built."""

    config: ExperimentConfig
    folder: RunFolder
    distributed: DistributedContext
    train_set: Dataset
    val_set: Dataset
    model: Model
    task: Task
    description: Mapping[str, Any]
    """Facts that are stored in every checkpoint of the run, such as config, classes and digests of the data."""


def open_run(start: StartingPoint, folder: RunFolder, distributed: DistributedContext, say: Say) -> Run:
    """Open the data and build the model of a run.

    Raises UsageError or DataError on all ranks if the data are invalid, do not fit the head, or differ from the data
    of the resumed run.
    """
    config = start.config
    with distributed.fail_together():
        _require_even_shards(config, distributed.world_size)
        train_set, val_set = _open_data(config, folder.path if distributed.is_rank_zero else None, say)
        data = describe_data(train_set, val_set)
        if start.resumed is not None:
            require_same_processes(start.resumed, distributed.world_size)
            require_same_data(start.resumed, data)
        model = _build_model(start, train_set, say).to(distributed.device).train()
        task = pick_task(model.head, val_set.classes)  # results files use the category ids of the validation data
    return Run(config, folder, distributed, train_set, val_set, model, task, {**start.description, **data})


def _require_even_shards(config: ExperimentConfig, world_size: int) -> None:
    micro_batches = world_size * config.recipe.accumulate
    if config.recipe.batch_size % micro_batches:
        raise UsageError(
            f"batch_size {config.recipe.batch_size} cannot be divided evenly among {world_size} processes "
            f"with accumulate {config.recipe.accumulate}",
            f"choose a multiple of {micro_batches}: batch_size counts the images of a step on all processes",
        )


def _open_data(config: ExperimentConfig, folder: Path | None, say: Say) -> tuple[Dataset, Dataset]:
    """Open and check the training and the validation data; write a report of each into ``folder`` if there is one."""
    train_set = _open_split(config.train, require_objects, folder and folder / "data_report.json")
    val_set = _open_split(config.val, warn_without_objects, folder and folder / "data_report_val.json")
    for name, dataset in (("train", train_set), ("val", val_set)):
        say(f"{name}: {dataset.report.summary()}")
    if folder is not None:
        from .doctor import describe_quickly  # it uses the rules of recipes, whose package imports the training

        say(f"data: {describe_quickly(train_set, val_set, config)}; vertebra doctor says more")
    for dataset in (train_set, val_set):
        require_targets(config.model.head, dataset)
    require_keypoint_sigmas(config.evaluation, val_set)
    require_classes(config.model.head, train_set.classes, val_set.classes)
    names, val_names = ([classes.names for classes in data.classes.values()] for data in (train_set, val_set))
    if config.evaluation.losses and names != val_names:
        raise UsageError(
            "val has other classes than train, so validation losses cannot be computed", "set evaluation.losses=false"
        )
    return train_set, val_set


def _open_split(split: SplitConfig, check: Callable[[Dataset], None], report: Path | None) -> Dataset:
    """Open and check a data set, and write its report, also if the check fails."""
    dataset = build_dataset(split.dataset, split.bad_data)
    try:
        check(dataset)
    finally:
        if report is not None:
            dataset.report.write(report)
    return dataset


def _build_model(start: StartingPoint, train_set: Dataset, say: Say) -> Model:
    """Build the model with the initial weights of a new run; a resumed run loads its weights later."""
    config = start.config
    seed_step(config.recipe.seed, 0)
    with value_errors_as_usage_errors():
        names = {task: classes.names for task, classes in train_set.classes.items()}
        model = build_model(config.model, names)
    if start.resumed is not None:
        return model
    if config.model.weights is not None:
        say(load_backbone_weights(model.backbone, config.model.weights))
    elif start.source is not None:
        name, source = start.source.source, start.source.inference.model
        say(f"{name}: {transfer_weights(model, start.source.load())}")
        if (changes := describe_model_changes(source, config.model)) is not None:
            say(f"{name} was trained with other settings, to which its weights must adapt: {changes}")
    return model


def describe_data(train: Dataset, val: Dataset) -> dict[str, Any]:
    """Return the facts about the data that a checkpoint stores: classes, and digests of image ids and annotations."""
    ids = {
        split: hashlib.sha256("\n".join(map(str, dataset.image_ids)).encode(errors="surrogateescape")).hexdigest()
        for split, dataset in (("train", train), ("val", val))
    }
    annotations = {split: dataset.annotation_digest() for split, dataset in (("train", train), ("val", val))}
    return {"classes": train.classes, "image_id_digests": ids, "annotation_digests": annotations}


def require_same_data(checkpoint: Checkpoint, data: Mapping[str, Any]) -> None:
    """Raise UsageError if ``data``, from :func:`describe_data`, differ from the data the checkpoint was trained on."""
    require_same_classes(checkpoint.classes, data["classes"], ("the run", "the data"))
    changed = [
        f"{split} {name}"
        for name, stored, current in (
            ("image ids", checkpoint.image_id_digests, data["image_id_digests"]),
            ("annotations", checkpoint.annotation_digests, data["annotation_digests"]),
        )
        for split in stored
        if stored[split] != current[split]
    ]
    if checkpoint.classes != data["classes"]:
        changed.append("category ids")
    if changed:
        raise UsageError(
            f"the {' and the '.join(changed)} have changed since the run started",
            "resume with the same data, or start a new run with another --output",
        )


def require_same_processes(checkpoint: Checkpoint, world_size: int) -> None:
    """Raise UsageError if a run is resumed with a different number of processes.

    Sums over ranks would round differently, and batch norm would see other shards of a batch.
    """
    stored = checkpoint.world_size
    if stored != world_size:
        raise UsageError(
            f"the run was trained with {stored} processes, not {world_size}: its results would change",
            f"resume with {stored} processes",
        )
