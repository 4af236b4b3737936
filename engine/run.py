"""What stays the same of a run from its first step to its last: data, model, task, and what its checkpoints say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backbones import load_backbone_weights
from ..data import Dataset, build_dataset, require_same_classes
from ..models import Model, build_model, transfer_weights
from ..structures import UsageError, value_errors_as_usage_errors
from .checkpoints.restore import load_checkpoint_model, load_weights
from .config import ExperimentConfig, SplitConfig
from .distributed.context import DistributedContext
from .loop.step import seed_step
from .run_folder import RunFolder, StartingPoint, describe_data, require_same_data, require_same_processes
from .tasks import Task, pick_task, require_targets

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """An experiment with its data open and its model built."""

    config: ExperimentConfig
    folder: RunFolder
    processes: DistributedContext
    train_set: Dataset
    val_set: Dataset
    model: Model
    task: Task
    description: Mapping[str, Any]
    """What its checkpoints say of it beside their step."""


def open_run(starting_point: StartingPoint, folder: RunFolder, processes: DistributedContext, say: Say) -> Run:
    """Data and model as they are before the first step; UsageError or DataError where something does not fit."""
    config, checkpoint, source = starting_point.config, starting_point.resumed, starting_point.source
    _require_even_shares(config, processes.count)
    train_set, val_set = _open_data(config, folder.path if processes.is_rank_zero else None, say)
    data = describe_data(train_set, val_set)
    if checkpoint is not None:
        require_same_processes(checkpoint, processes.count)
        require_same_data(checkpoint, data)
    for dataset in (train_set, val_set):
        require_targets(config.model.head, dataset)
    seed_step(config.recipe.seed, 0)
    with value_errors_as_usage_errors():
        names = {task: classes.names for task, classes in train_set.classes.items()}
        model = build_model(config.model, names).to(processes.device)
    if checkpoint is not None:
        load_weights(checkpoint, model)
    elif config.model.weights is not None:
        say(load_backbone_weights(model.backbone, config.model.weights))
    elif source is not None:
        say(f"{source.path}: {transfer_weights(model, load_checkpoint_model(source))}")
    task = pick_task(model.head, train_set.classes, config.evaluation.inference)
    description = {"config": config.model_dump(mode="json"), "origin": starting_point.origin(), **data}
    return Run(config, folder, processes, train_set, val_set, model.train(), task, description)


def _require_even_shares(config: ExperimentConfig, processes: int) -> None:
    share = processes * config.recipe.accumulate
    if config.recipe.batch_size % share:
        raise UsageError(
            f"batch_size {config.recipe.batch_size} cannot be shared out evenly to {processes} processes, "
            f"accumulate {config.recipe.accumulate}",
            f"choose a multiple of {share}: it is the images of a whole step",
        )


def _open_data(config: ExperimentConfig, folder: Path | None, say: Say) -> tuple[Dataset, Dataset]:
    """Return the training and the validation data, validated; a report of each is written to ``folder``."""
    train_set = _open_split(config.train, "train", folder and folder / "data_report.json", say)
    val_set = _open_split(config.val, "val", folder and folder / "data_report_val.json", say)
    require_same_classes(train_set.classes, val_set.classes)
    return train_set, val_set


def _open_split(split: SplitConfig, name: str, report: Path | None, say: Say) -> Dataset:
    dataset = build_dataset(split.dataset, split.bad_data)
    if report is not None:
        dataset.report.write(report)
    say(f"{name}: {dataset.report.summary()}")
    return dataset
