"""Score a trained model on the validation data of an experiment, from its folder or in memory."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..data import build_dataset, require_same_classes
from ..evaluation import Scores
from ..models import Model
from ..structures import UsageError, pick_device
from .checkpoints.checkpoint import open_checkpoint
from .checkpoints.restore import load_checkpoint_model
from .config import ExperimentConfig
from .distributed.context import init_distributed
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
) -> dict[str, Any]:
    """Score a model on the ``val`` data of an experiment, and return the numbers as ``eval.json`` has them.

    ``{"bbox": {"AP": 0.48, ...}, "per_class": {...}}``: a dict of numbers for each thing scored. ``model`` is a run
    folder or a checkpoint, whose own experiment is used unless ``config`` is another one, or a model, which needs a
    ``config`` and stays where it is. Under ``torchrun`` the processes share the images, and rank zero gets the numbers;
    the others get an empty dict.
    """
    if isinstance(model, Model):
        if config is None:
            raise UsageError("a model alone does not say on which data to score it", "give a config too")
        dataset = build_dataset(config.val.dataset, config.val.bad_data)
        require_targets(config.model.head, dataset)
        task = pick_task(model.head, dataset.classes, config.evaluation.inference)
        evaluated = evaluate(task, model, dataset, config)
        return {} if evaluated is None else scores_as_json(evaluated[1])
    result = evaluate_checkpoint(model, device, lambda own: own if config is None else config)
    return {} if result is None else scores_as_json(result.scores)


def evaluate_checkpoint(
    path: str | os.PathLike[str],
    device: torch.device | str = "auto",
    change: Callable[[ExperimentConfig], ExperimentConfig] = lambda config: config,
) -> CheckpointScores | None:
    """Score a run folder's newest checkpoint, or one checkpoint, on its ``val`` data.

    ``change`` returns the config to evaluate with, given the checkpoint's. The processes of a distributed evaluation
    share the images; those that are not rank zero get None.
    """
    with init_distributed(pick_device(device)) as processes:
        with processes.fail_together():
            checkpoint = open_checkpoint(path)
            config = change(checkpoint.config)
            model = load_checkpoint_model(checkpoint, processes.device)
            dataset = build_dataset(config.val.dataset, config.val.bad_data)
            require_same_classes(checkpoint.classes, dataset.classes, ("the model", "the data"))
            require_targets(checkpoint.config.model.head, dataset)
            task = pick_task(model.head, dataset.classes, config.evaluation.inference)
        evaluated = evaluate(task, model, dataset, config, processes)
    return None if evaluated is None else CheckpointScores(evaluated[1], checkpoint.step, len(dataset))
