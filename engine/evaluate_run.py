"""Score a trained model on the validation data of an experiment, from its folder or in memory."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from ..data import build_dataset, require_same_classes
from ..evaluation import Scores
from ..inference import import_user_code, load_checkpoint_model, open_checkpoint
from ..models import Model
from ..structures import UsageError, pick_device
from .config import ExperimentConfig, experiment_config
from .distributed.context import init_distributed
from .logging.progress import ProgressDisplay
from .loop.evaluate import evaluate, scores_as_json
from .tasks import pick_task, require_targets


@dataclass(frozen=True, slots=True)
class CheckpointScores:
    """The scores of a checkpoint."""

    scores: Mapping[str, Scores]
    step: int
    images: int
    """The number of images that were scored."""


def evaluate_run(
    model: Model | str | os.PathLike[str],
    config: ExperimentConfig | None = None,
    *,
    device: torch.device | str = "auto",
    imports: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
    """Score a model on the ``val`` data of an experiment, and return the numbers as ``eval.json`` has them.

    ``{"bbox": {"AP": 0.48, ...}, "per_class": {...}}``: a dict of numbers for each thing scored. ``model`` is a run
    folder or a checkpoint, whose own experiment is used unless ``config`` is another one, or a model, which needs a
    ``config`` and stays where it is. Under ``torchrun`` the processes share the images, and rank zero gets the numbers;
    the others get an empty dict. ``imports`` are modules or Python files with parts of your own, which are imported
    first.
    """
    if isinstance(model, Model):
        if config is None:
            raise UsageError("a model alone does not say on which data to score it", "give a config too")
        dataset = build_dataset(config.val.dataset, config.val.bad_data)
        require_targets(config.model.head, dataset)
        evaluated = evaluate(pick_task(model.head, dataset.classes), model, dataset, config)
        return {} if evaluated is None else scores_as_json(evaluated[1])
    result = evaluate_checkpoint(model, device, lambda own: own if config is None else config, imports=imports)
    return {} if result is None else scores_as_json(result.scores)


def evaluate_checkpoint(
    path: str | os.PathLike[str],
    device: torch.device | str = "auto",
    change: Callable[[ExperimentConfig], ExperimentConfig] = lambda config: config,
    *,
    imports: Sequence[str | os.PathLike[str]] = (),
    console: Console | None = None,
) -> CheckpointScores | None:
    """Score a run folder's newest checkpoint, or one checkpoint, on its ``val`` data.

    ``change`` returns the config to evaluate with, given the checkpoint's. ``imports`` are modules or Python files with
    parts of your own, and the ``console`` shows how far it has come. The processes of a distributed evaluation share
    the images; those that are not rank zero get None.
    """
    with init_distributed(pick_device(device)) as distributed:
        with distributed.fail_together():
            for name in imports:
                import_user_code(name)
            checkpoint = open_checkpoint(path)
            config = change(experiment_config(checkpoint))
            model = load_checkpoint_model(checkpoint, distributed.device)
            dataset = build_dataset(config.val.dataset, config.val.bad_data)
            require_same_classes(checkpoint.classes, dataset.classes, ("the model", "the data"))
            require_targets(checkpoint.inference_config().model.head, dataset)
            task = pick_task(model.head, dataset.classes)
        if console is None or not distributed.is_rank_zero:
            console = Console(quiet=True)
        with ProgressDisplay(console).shown() as display:
            evaluated = evaluate(task, model, dataset, config, distributed, display)
    return None if evaluated is None else CheckpointScores(evaluated[1], checkpoint.step, len(dataset))
