"""Run a model over a data set and score what it predicts, in original pixels and ids."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...data import Batch, Dataset, Shard, eval_loader, worker_errors
from ...evaluation import Engine, Scores
from ...formats import add_file_to_error, open_results, sort_results
from ...models import Model
from ...structures import DataError
from ..config import ExperimentConfig
from ..distributed.context import DistributedContext
from ..tasks import TASKS, Rows, Task
from .determinism import deterministic_kernels
from .precision import matrix_precision


def evaluate(
    task: Task, model: Model, dataset: Dataset, config: ExperimentConfig, processes: DistributedContext | None = None
) -> tuple[Rows, dict[str, Scores]] | None:
    """The result rows of a validation set, read as the experiment says, and their scores.

    Of several processes each predicts its share of the images, and the first one gets the result; the others None.
    """
    processes = processes or DistributedContext(model.device)
    batches = eval_loader(
        dataset,
        config.val.transform,
        config.run.loader,
        batch_size=1
        if config.recipe.deterministic
        else config.evaluation.batch_size,  # a batch's size decides how sums are ordered
        divisor=model.size_divisor,
        share=Shard(processes.rank, processes.count),
    )
    with matrix_precision(config.recipe.precision), deterministic_kernels(config.recipe.deterministic):
        shares = processes.gather_to_rank_zero(collect_results(task, model, batches))
    if not processes.is_rank_zero:
        return None
    rows = sort_results([row for own in shares for row in own])
    return rows, task.score(dataset, rows, config.evaluation.engine)


def collect_results(task: Task, model: Model, batches: Iterable[Batch]) -> Rows:
    """The result rows of every image."""
    rows: Rows = []
    with evaluation_mode(model), worker_errors():
        for batch in batches:
            for image_id, prediction in zip(batch.image_ids, task.predict(model, batch), strict=True):
                rows += task.rows(prediction, image_id)
    return rows


@contextlib.contextmanager
def evaluation_mode(model: Model) -> Iterator[None]:
    """Inside, norms use their statistics and nothing is dropped."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def score_results(path: str | os.PathLike[str], dataset: Dataset, engine: Engine = "hotcoco") -> dict[str, Scores]:
    """The scores of a results file, as the run that wrote it got them; no model is needed.

    DataError naming the file and the row that cannot be scored.
    """
    with open_results(path) as rows:
        with add_file_to_error(path):
            task = _task_of(rows, dataset)
        return TASKS[task](dataset.classes[task]).score(dataset.part(task), rows, engine)


def _task_of(rows: Rows, dataset: Dataset) -> str:
    """The task that rows of results are of. A joint data set has the truth of several: the first row's fields tell."""
    if dataset.task in TASKS:
        return dataset.task
    row = rows[0] if rows else {}
    task = next((task for task, kind in TASKS.items() if kind.mark in row), "")
    if task not in dataset.classes:
        what = (
            f"the first row is none of {' or '.join(dataset.classes)}" if rows else "no row tells whose results it is"
        )
        raise DataError(what, "give a file of one head's results", case="bad-results")
    return task


def scores_as_json(scores: Mapping[str, Scores], **facts: Any) -> dict[str, Any]:
    """What ``eval.json`` holds: for each thing scored (``bbox``) its numbers under their usual names, the first of them
    per class, and ``facts``."""
    summaries = {name: each.summary for name, each in scores.items()}
    return {**summaries, "per_class": {name: each.per_class for name, each in scores.items()}, **facts}


