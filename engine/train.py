"""The training loop. Data, seeds and learning rate are functions of the step, so resume is exact."""

import contextlib
import functools
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import optim

from ..backbones import load_backbone_weights
from ..data import Batch, Dataset, Policy, build_dataset, require_same_classes, train_loader
from ..evaluation import format_scores
from ..models import Model, build_model, resolve_input
from ..structures import MemoryFullError, NonFiniteError, VertebraError
from .checkpoint import load_optimizer, load_weights, prune_checkpoints, save_checkpoint
from .config import ExperimentConfig
from .evaluate import evaluate, scores_as_json, write_json
from .optimization import build_optimizer, set_learning_rate
from .pictures import draw_comparisons
from .run_folder import RunFolder
from .run_log import RunLog
from .tasks import Task, pick_task


class Interrupted(VertebraError):
    """A signal asked the run to stop, and its checkpoint is written."""

    case = "interrupted"

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}", "continue with --resume")
        self.exit_code = 128 + number


def train(
    config: ExperimentConfig,
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    device: torch.device | str = "cpu",
    bad_data: Policy = "error",
    console: Console | None = None,
) -> dict[str, Any]:
    """Train, evaluate and draw; everything is written to the folder ``output``. Returns what ``eval.json`` holds."""
    console = console or Console(stderr=True)
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    config = config.model_copy(update={"model": resolve_input(config.model)})
    steps = config.schedule.steps
    with RunFolder(output) as folder:
        checkpoint = folder.resume(config, say) if resume else folder.start(config)
        train_set, val_set = _open_data(config, folder.path, bad_data, say)
        seed_step(config.seed, 0)
        model = build_model(config.model, train_set.class_names).to(device)
        task = pick_task(model.head, train_set, val_set)
        optimizer = build_optimizer(config.optimizer, model)
        start = 0
        if checkpoint is not None:
            start = checkpoint.step
            load_weights(checkpoint, model)
            load_optimizer(checkpoint, optimizer)
        elif config.model.weights is not None:
            say(load_backbone_weights(model.backbone, config.model.weights))
        folder.truncate_metrics(start)
        facts = {
            "config": config.model_dump(mode="json"),
            "class_names": train_set.class_names,
            "category_ids": train_set.category_ids,
        }
        batches = train_loader(
            train_set,
            config.train.transform,
            config.loader,
            batch_size=config.batch_size,
            divisor=model.size_divisor,
            seed=config.seed,
            start_step=start,
            end_step=steps,
        )
        model.train()
        with RunLog(folder.path, steps=steps, start=start, every=config.log_every, console=console) as log:
            with _stop_requests() as stop:
                for step, (batch, waited) in enumerate(_timed(batches), start + 1):
                    numbers = train_step(model, optimizer, batch.to(model.device), config, step)
                    log.step(step, numbers, images=len(batch.images), waited=waited)
                    if step % config.checkpoint_every == 0 or step == steps or stop:
                        save_checkpoint(folder.checkpoints, step, model, optimizer, facts)
                        prune_checkpoints(folder.checkpoints, config.keep_checkpoints)
                    if stop:
                        raise Interrupted(stop[0], step)
                    if config.eval_every and step % config.eval_every == 0 and step < steps:
                        _evaluate(config, task, model, val_set, step, log)
            if _evaluated_step(folder.path) != steps:
                _evaluate(config, task, model, val_set, steps, log)
                draw_comparisons(task, model, val_set, config.val.transform, folder.path / "predictions.png")
            log.say(f"results are in {folder.path}")
        return json.loads((folder.path / "eval.json").read_text())


def train_step(
    model: Model, optimizer: optim.Optimizer, batch: Batch, config: ExperimentConfig, step: int
) -> dict[str, float]:
    """One update, number ``step`` counted from 1; returns its losses, gradient norm and learning rate.

    Raises :class:`NonFiniteError` before the weights are touched, naming the images.
    """
    seed_step(config.seed, step)
    lr = config.optimizer.lr * config.schedule.factor(step - 1)
    set_learning_rate(optimizer, lr)
    try:
        losses = model(batch.images, batch.targets)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
    except torch.OutOfMemoryError as error:
        sizes = ", ".join(f"{height}x{width}" for height, width in batch.images.sizes.tolist())
        raise MemoryFullError(
            f"step {step} did not fit with images of {sizes}", "lower batch_size or the transform's sizes"
        ) from error
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm or math.inf)
    # One read from the device a step, for all numbers together.
    values = torch.stack([*losses.values(), total, norm]).tolist()
    numbers = dict(zip([*losses, "loss", "grad_norm"], values, strict=True))
    if not all(math.isfinite(value) for value in values):
        terms = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        ids = ", ".join(str(image_id) for image_id in batch.image_ids)
        raise NonFiniteError(f"step {step}: {terms}; images {ids}", "lower optimizer.lr, or look at these images")
    optimizer.step()
    return numbers | {"lr": lr}


def seed_step(seed: int, step: int) -> None:
    """Make every random draw of a step a function of (seed, step), so that resuming needs no generator's state."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1))


def _open_data(
    config: ExperimentConfig, folder: Path, bad_data: Policy, say: Callable[[str], None]
) -> tuple[Dataset, Dataset]:
    """Both data sets, validated; under ``skip`` what was left out is reported beside the run."""
    data = []
    for split in ("train", "val"):
        dataset = build_dataset(getattr(config, split).dataset, bad_data)
        dataset.report.write(folder / ("data_report.json" if split == "train" else f"data_report_{split}.json"))
        say(f"{split}: {dataset.report.summary()}")
        data.append(dataset)
    require_same_classes(*data)
    return data[0], data[1]


def _evaluate(config: ExperimentConfig, task: Task, model: Model, dataset: Dataset, step: int, log: RunLog) -> None:
    """Score the validation split; ``eval.json`` and ``results.json`` hold the newest."""
    rows, scores = evaluate(task, model, dataset, config)
    for each in scores.values():
        log.record(step, each.summary, "val")
        log.say(format_scores(each))
    write_json(log.folder / "results.json", rows)
    write_json(log.folder / "eval.json", scores_as_json(scores, step=step, images=len(dataset)))
    log.restart_clock()


def _evaluated_step(folder: Path) -> int | None:
    """The step that ``eval.json`` is of."""
    path = folder / "eval.json"
    return json.loads(path.read_text())["step"] if path.exists() else None


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds it was waited for."""
    before = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - before
        before = time.perf_counter()


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """A list that SIGTERM and Ctrl-C put their number into; a second signal acts at once."""
    received: list[int] = []
    previous = {}

    def note(number: int, frame: object) -> None:
        received.append(number)
        for known, handler in previous.items():
            signal.signal(known, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
