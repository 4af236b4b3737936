"""Evaluate a trained model, from a run folder, a checkpoint or memory, on the validation data of an experiment."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from ..data import build_dataset
from ..evaluation import Scores
from ..inference import import_user_code, load_checkpoint_model, open_checkpoint
from ..models import Model
from ..structures import UsageError, pick_device
from .config import ExperimentConfig, experiment_config
from .distributed.context import init_distributed
from .logging.progress import ProgressDisplay
from .loop.evaluate import evaluate, scores_as_json
from .tasks import pick_task, require_classes, require_keypoint_sigmas, require_targets


@dataclass(frozen=True, slots=True)
class CheckpointScores:
    """The scores of a checkpoint."""

    scores: Mapping[str, Scores]
    """Scores by name, such as ``bbox``."""
    step: int
    images: int
    """The number of images in the validation data."""


def evaluate_run(
    model: Model | str | os.PathLike[str],
    config: ExperimentConfig | None = None,
    *,
    device: torch.device | str = "auto",
    imports: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
    """Score a model on the ``val`` data of an experiment, and return the scores in the format of ``eval.json``.

    The result has a dict of numbers for each thing scored: ``{"bbox": {"AP": 0.48, ...}, "per_class": {...}}``.
    ``model`` is the path of a run folder or a checkpoint, whose stored config is used unless ``config`` is given; or a
    model, which needs ``config`` and stays on its device. ``imports`` are modules or Python files that define custom
    parts; they are imported first. Under ``torchrun`` each process predicts a shard of the images; rank zero gets the
    scores, and the other ranks an empty dict.
    """
    if isinstance(model, Model):
        if config is None:
            raise UsageError("evaluating a model object needs a config, which names the data", "pass config=...")
        dataset = build_dataset(config.val.dataset, config.val.bad_data)
        require_targets(config.model.head, dataset)
        require_keypoint_sigmas(config.evaluation, dataset)
        evaluated = evaluate(pick_task(model.head, dataset.classes), model, dataset, config)
        return {} if evaluated is None else scores_as_json(evaluated[1])
    result = evaluate_checkpoint(model, device, lambda stored: stored if config is None else config, imports=imports)
    return {} if result is None else scores_as_json(result.scores)


def evaluate_checkpoint(
    path: str | os.PathLike[str],
    device: torch.device | str = "auto",
    change: Callable[[ExperimentConfig], ExperimentConfig] = lambda config: config,
    *,
    imports: Sequence[str | os.PathLike[str]] = (),
    console: Console | None = None,
) -> CheckpointScores | None:
    """Score a checkpoint, or the newest checkpoint of a run folder, on the ``val`` data of its experiment.

    ``change`` maps the checkpoint's config to the config to evaluate with. ``imports`` are modules or Python files that
    define custom parts; they are imported first. ``console`` shows the progress. In a distributed evaluation each
    process predicts a shard of the images; ranks other than zero get None.
    """
    with init_distributed(pick_device(device)) as distributed:
        with distributed.fail_together():
            for name in imports:
                import_user_code(name)
            checkpoint = open_checkpoint(path)
            config = change(experiment_config(checkpoint))
            model = load_checkpoint_model(checkpoint, distributed.device)
            dataset = build_dataset(config.val.dataset, config.val.bad_data)
            head = checkpoint.inference_config().model.head
            require_classes(head, checkpoint.classes, dataset.classes, ("the model", "the data"))
            require_targets(head, dataset)
            require_keypoint_sigmas(config.evaluation, dataset)
            task = pick_task(model.head, dataset.classes)
        if console is None or not distributed.is_rank_zero:
            console = Console(quiet=True)
        with ProgressDisplay(console).shown() as display:
            evaluated = evaluate(task, model, dataset, config, distributed, display)
    return None if evaluated is None else CheckpointScores(evaluated[1], checkpoint.step, len(dataset))
