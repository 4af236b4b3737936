"""Evaluating a model on a data set: results, scores and validation losses."""

import contextlib
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from ...data import Batch, Dataset, Shard, eval_loader, worker_errors
from ...evaluation import Scores
from ...formats import add_file_to_error, open_results, require_same_images, sort_results
from ...heads import HeadConfig
from ...inference import deterministic_kernels, matrix_precision, predict_originals
from ...models import Model, PredictingModel, ViewConfig
from ...ops import single_process, split_losses
from ..config import EvaluationConfig, ExperimentConfig
from ..distributed.context import DistributedContext
from ..logging.progress import ProgressDisplay
from ..tasks import Rows, Task, task_of_results
from .step import seed_step

MAX_WAITING = 2
"""Maximum number of batches whose predictions wait to be converted to results rows; more would only take memory."""


def evaluate(
    task: Task,
    model: PredictingModel,
    dataset: Dataset,
    config: ExperimentConfig,
    distributed: DistributedContext | None = None,
    display: ProgressDisplay | None = None,
) -> tuple[Rows, dict[str, Scores]] | None:
    """Predict a validation set as the experiment's config says, and return (results rows, scores by name).

    Each rank predicts a shard of the images. Rank zero computes the scores; the other ranks get None.
    """
    distributed = distributed or DistributedContext(model.device)
    display = display or ProgressDisplay(Console(quiet=True))
    inference = config.inference()
    batches = eval_loader(
        dataset,
        config.val.transform,
        config.run.loader,
        batch_size=inference.batch_size,
        divisor=model.size_divisor,
        shard=Shard(distributed.rank, distributed.world_size),
    )
    steps = math.ceil(math.ceil(len(dataset) / inference.batch_size) / distributed.world_size)
    batches = display.track(batches, steps, "evaluating", "batches")
    with matrix_precision(inference.precision), deterministic_kernels(inference.deterministic):
        shards = distributed.gather_to_rank_zero(collect_results(task, model, batches, inference.views))
    rows = sort_results([row for shard in shards for row in shard])
    scores = distributed.on_rank_zero(lambda: task.score(dataset, rows, config.evaluation))
    return (rows, scores) if distributed.is_rank_zero else None


def collect_results(
    task: Task, model: PredictingModel, batches: Iterable[Batch], views: ViewConfig | None = None
) -> Rows:
    """Return the results rows of all images in ``batches``; ``views`` sets the windows and scales of predictions.

    A thread converts predictions to rows, which for masks includes their encoding as RLE, while the next batch is
    predicted. Its errors are raised here.
    """
    rows: Rows = []
    waiting: deque[Future[Rows]] = deque()
    with evaluation_mode(model), worker_errors(), ThreadPoolExecutor(max_workers=1) as encoder:
        for batch in batches:
            predictions = predict_originals(model, batch.images, batch.original_sizes, views)
            waiting.append(encoder.submit(_rows_of_images, task, batch.image_ids, predictions))
            if len(waiting) > MAX_WAITING:
                rows += waiting.popleft().result()
        for rows_of_batch in waiting:
            rows += rows_of_batch.result()
    return rows


def _rows_of_images(task: Task, image_ids: Sequence[int | str], predictions: Sequence[Any]) -> Rows:
    """Return the results rows of the images of a batch."""
    pairs = zip(image_ids, predictions, strict=True)
    return [row for image_id, prediction in pairs for row in task.rows(prediction, image_id)]


@contextlib.contextmanager
def evaluation_mode(model: PredictingModel) -> Iterator[None]:
    """Put the model into evaluation mode inside the block, and restore its mode afterwards."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)


def score_results(
    path: str | os.PathLike[str],
    dataset: Dataset,
    head: HeadConfig,
    config: EvaluationConfig = EvaluationConfig(),
) -> dict[str, Scores]:
    """Return the scores of a results file, without a model; they equal the scores of the run that wrote the file.

    ``head`` is the head config of the experiment that the file belongs to. Raises DataError naming the file and the
    invalid row.
    """
    require_same_images(path, {image_id: dataset.file_name(index) for index, image_id in enumerate(dataset.image_ids)})
    with open_results(path) as rows:
        with add_file_to_error(path):
            task, part = task_of_results(rows, head, dataset)
        return task.score(part, rows, config)


@torch.no_grad()
def validation_losses(
    model: Model, dataset: Dataset, config: ExperimentConfig, distributed: DistributedContext | None = None
) -> dict[str, float | None]:
    """Return the mean over all images of each loss and of their sum, ``loss``; None for a mean that is not finite.

    The batch size is 1, and random numbers depend only on the seed and the image's index, so that the result is
    bit-identical at every step and for any number of ranks. Ranks other than zero get an empty dict.
    """
    distributed = distributed or DistributedContext(model.device)
    shard = Shard(distributed.rank, distributed.world_size)
    model.set_progress(1.0)  # validation losses include those that start late in training
    batches = eval_loader(
        dataset, config.val.transform, config.run.loader, batch_size=1, divisor=model.size_divisor, shard=shard
    )
    names: list[str] = []
    rows: list[Tensor] = []
    with evaluation_mode(model), single_process(), worker_errors():
        for index, batch in enumerate(batches):
            seed_step(config.recipe.seed, shard.rank + index * shard.world_size)
            batch = batch.to(model.device)
            losses, _ = split_losses(model(batch.images, batch.targets))
            names = [*losses, "loss"]
            values = torch.stack(list(losses.values()))
            rows.append(torch.cat([values, values.sum()[None]]))
    values_of_rank = torch.stack(rows).tolist() if rows else []  # one read from the device for all images
    gathered = distributed.gather_to_rank_zero(values_of_rank)
    if not distributed.is_rank_zero:
        return {}
    columns = zip(*(row for rows_of_rank in gathered for row in rows_of_rank), strict=True)
    return {name: _exact_mean(column) for name, column in zip(names, columns, strict=True)}


def describe_losses(losses: Mapping[str, float | None]) -> str:
    """Return the validation losses as a line for the log."""
    values = {name: "not finite" if value is None else f"{value:.3f}" for name, value in losses.items()}
    return "validation: " + "  ".join(f"{name} {value}" for name, value in values.items())


def _exact_mean(values: Sequence[float]) -> float | None:
    """Return the mean, exact up to one rounding so that the order does not matter; None if it is not finite."""
    mean = math.fsum(values) / len(values)
    return mean if math.isfinite(mean) else None
