"""Evaluate a trained model, from a run, a file, the zoo or memory, on the validation data of an experiment."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from ..data import Dataset, as_transform, build_dataset, build_transform, collate
from ..evaluation import Scores, scores_as_json
from ..heads import task_of_head
from ..inference import (
    OptimizedPrecision,
    RunModel,
    TrainedModel,
    deterministic_kernels,
    import_user_code,
    load_for_prediction,
    matrix_precision,
    open_model,
    optimize_for_inference,
)
from ..models import Model
from ..ops import join_first
from ..structures import Classes, Images, UsageError, pick_device
from .config import ExperimentConfig, experiment_config
from .distributed.context import init_distributed
from .logging.progress import ProgressDisplay
from .loop.evaluate import evaluate
from .tasks import pick_task, require_classes, require_keypoint_sigmas, require_targets


@dataclass(frozen=True, slots=True)
class ModelScores:
    """The scores of a trained model."""

    scores: Mapping[str, Scores]
    """Scores by name, such as ``bbox``."""
    step: int | None
    """The training step of a run's checkpoint; None for any other model."""
    images: int
    """The number of images in the validation data."""


def evaluate_run(
    model: Model | str | os.PathLike[str],
    config: ExperimentConfig | None = None,
    *,
    like: str | None = None,
    device: torch.device | str = "auto",
    imports: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
    """Score a model on the ``val`` data of an experiment, and return the scores in the format of ``eval.json``.

    The result has a dict of numbers for each thing scored: ``{"bbox": {"AP": 0.48, ...}, "per_class": {...}}``.
    ``model`` is a run folder or a checkpoint, whose stored config is used unless ``config`` is given; a published model
    or a file of weights (see :func:`~vertebra.inference.open_model`), which needs ``config``; or a model object, which
    needs ``config`` too and stays on its device. ``imports`` are modules or Python files that define
    custom parts; they are imported first. Under ``torchrun`` each process predicts a shard of the images; rank zero
    gets the scores, and the other ranks an empty dict.
    """
    if isinstance(model, Model):
        if config is None:
            raise UsageError("evaluating a model object needs a config, which names the data", "pass config=...")
        dataset = build_dataset(config.val.dataset, config.val.bad_data)
        require_targets(config.model.head, dataset)
        require_keypoint_sigmas(config.evaluation, dataset)
        evaluated = evaluate(pick_task(model.head, dataset.classes), model, dataset, config)
        return {} if evaluated is None else scores_as_json(evaluated[1])

    def prepare() -> tuple[TrainedModel, ExperimentConfig]:
        for name in imports:
            import_user_code(name)
        trained = open_model(model, like)
        return trained, stored_config(trained) if config is None else config

    result = evaluate_trained(prepare, device)
    return {} if result is None else scores_as_json(result.scores)


def stored_config(trained: TrainedModel) -> ExperimentConfig:
    """Return the config of the experiment that trained a model; raise UsageError if it was not trained by a run."""
    if isinstance(trained, RunModel):
        return experiment_config(trained.checkpoint)
    fix = "name a config whose val data it is scored on with --data CONFIG (config= in Python)"
    raise UsageError("this model has no data of its own", fix, file=trained.source)


def config_for_data(trained: TrainedModel, config: ExperimentConfig) -> ExperimentConfig:
    """Return a config with whose ``val`` data a model can be scored: images are prepared as the model needs it."""
    preprocessing = trained.inference.preprocessing
    return config if preprocessing is None else config.replace(val={"transform": as_transform(preprocessing)})


def evaluate_trained(
    prepare: Callable[[], tuple[TrainedModel, ExperimentConfig]],
    device: torch.device | str = "auto",
    *,
    optimize: OptimizedPrecision | None = None,
    console: Console | None = None,
) -> ModelScores | None:
    """Score a trained model on the ``val`` data of an experiment; ``prepare`` returns both, and its errors reach all
    processes of a distributed evaluation.

    The classes of detections are matched by name if the data have other classes than the model. ``optimize`` makes
    predictions faster, after a comparison with the plain model on the first images. ``console`` shows the progress. In
    a distributed evaluation each process predicts a shard of the images; ranks other than zero get None.
    """
    with init_distributed(pick_device(device)) as distributed:
        if console is None or not distributed.is_rank_zero:
            console = Console(quiet=True)
        with distributed.fail_together():
            trained, config = prepare()
            model = load_for_prediction(trained, distributed.device)
            dataset = build_dataset(config.val.dataset, config.val.bad_data)
            head, classes = trained.inference.model.head, trained.classes
            if task_of_head(head.name) != "detection":
                require_classes(head, classes, dataset.classes, ("the model", "the data"))
            require_targets(head, dataset)
            require_keypoint_sigmas(config.evaluation, dataset)
            task = pick_task(model.head, dataset.classes, classes)
        with ProgressDisplay(console).shown() as display:
            if (note := describe_matched_classes(classes, dataset.classes)) is not None:
                display.say(note)
            if optimize is not None:
                if not isinstance(model, Model):
                    raise UsageError(
                        "an exported file cannot be optimized", "leave out --optimize", file=trained.source
                    )
                inference = config.inference()
                images = first_batches(dataset, config, model.size_divisor)
                with (
                    distributed.fail_together(),
                    # With other settings than these, the evaluation would compile the code again.
                    matrix_precision(inference.precision),
                    deterministic_kernels(inference.deterministic),
                ):
                    optimize_for_inference(model, optimize, images=images, in_place=True, say=display.say)
            evaluated = evaluate(task, model, dataset, config, distributed, display)
    if evaluated is None:
        return None
    step = trained.checkpoint.step if isinstance(trained, RunModel) else None
    return ModelScores(evaluated[1], step, len(dataset))


def first_batches(dataset: Dataset, config: ExperimentConfig, divisor: int, count: int = 3) -> list[Images]:
    """Return the first ``count`` validation images, transformed as for an evaluation, one per batch."""
    transform = build_transform(config.val.transform)
    indices = range(min(count, len(dataset)))
    return [collate([transform(dataset.read(index), 0, index)], divisor).images for index in indices]


def describe_matched_classes(trained: Mapping[str, Classes], evaluated: Mapping[str, Classes]) -> str | None:
    """Return a line on the detection classes that a model and a data set share; None if all names are the same."""
    if "detection" not in trained or "detection" not in evaluated:
        return None
    names, data_names = trained["detection"].names, evaluated["detection"].names
    if names == data_names:
        return None
    missing = [name for name in data_names if name not in names]
    shared = len(data_names) - len(missing)
    counts = f"{shared} of the data's {len(data_names)} are among the model's {len(names)}"
    rest = f"; the model cannot detect {join_first(missing, separator=', ')}" if missing else ""
    return f"classes are matched by name: {counts}{rest}"
