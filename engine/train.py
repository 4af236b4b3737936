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
from ..data import Batch, Dataset, Policy, build_dataset, require_same_classes, train_loader, worker_faults
from ..evaluation import format_scores
from ..models import Model, build_model
from ..structures import (
    MemoryFullError,
    NonFiniteError,
    VertebraError,
    is_out_of_memory,
    refusals_as_usage_errors,
)
from .checkpoint import load_optimizer, load_weights, prune_checkpoints, save_checkpoint
from .config import ExperimentConfig
from .evaluate import evaluate, scores_as_json, write_json
from .optimization import build_optimizer, set_learning_rate
from .pictures import draw_comparisons
from .run_folder import RunFolder, describe_data, require_same_data
from .run_log import RunLog
from .tasks import Task, pick_task, require_truth


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
    steps = config.schedule.steps
    with RunFolder(output) as folder:
        config, checkpoint = folder.resume(config, say) if resume else (folder.start(config), None)
        train_set, val_set = _open_data(config, folder.path, bad_data, say)
        data = describe_data(train_set, val_set)
        if checkpoint is not None:
            require_same_data(checkpoint, data)
        for dataset in (train_set, val_set):
            require_truth(config.model.head, dataset)
        seed_step(config.seed, 0)
        with refusals_as_usage_errors():
            names = {task: classes.names for task, classes in train_set.classes.items()}
            model = build_model(config.model, names).to(device)
            optimizer = build_optimizer(config.optimizer, model)
        task = pick_task(model.head, train_set.classes, config.inference)
        start = 0
        if checkpoint is not None:
            start = checkpoint.step
            load_weights(checkpoint, model)
            load_optimizer(checkpoint, optimizer)
        elif config.model.weights is not None:
            say(load_backbone_weights(model.backbone, config.model.weights))
        folder.rewind(start)
        facts = {"config": config.model_dump(mode="json"), **data}
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
            with _stop_requests() as stop, worker_faults():
                for step, (batch, waited) in enumerate(_timed(batches), start + 1):
                    numbers = train_step(model, optimizer, batch, config, step)
                    log.step(step, numbers, images=len(batch.images), waited=waited)
                    if step % config.checkpoint_every == 0 or step == steps or stop:
                        save_checkpoint(folder.checkpoints, step, model, optimizer, facts)
                        prune_checkpoints(folder.checkpoints, config.keep_checkpoints)
                    if stop:
                        raise Interrupted(stop[0], step)
                    if config.eval_every and step % config.eval_every == 0 and step < steps:
                        _evaluate(config, task, model, val_set, step, log)
            if folder.evaluated_step() < steps:
                _evaluate(config, task, model, val_set, steps, log)
            picture = folder.path / "predictions.png"
            if not picture.exists():
                draw_comparisons(task, model, val_set, config.val.transform, picture)
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
    with _memory_of(step, batch):
        batch = batch.to(model.device)
        losses = model(batch.images, batch.targets)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
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


@contextlib.contextmanager
def _memory_of(step: int, batch: Batch) -> Iterator[None]:
    """Where a step does not fit into memory, say with which images."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        sizes = ", ".join(f"{height}x{width}" for height, width in batch.images.sizes.tolist())
        raise MemoryFullError(
            f"step {step} did not fit with images of {sizes}", "lower batch_size or the transform's sizes"
        ) from error


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
    require_same_classes(data[0].classes, data[1].classes)
    return data[0], data[1]


def _evaluate(config: ExperimentConfig, task: Task, model: Model, dataset: Dataset, step: int, log: RunLog) -> None:
    """Score the validation split; ``eval.json`` and the results files hold the newest."""
    with log.paused():
        rows, scores = evaluate(task, model, dataset, config)
        for place, (kind, each) in enumerate(scores.items()):
            log.record(step, each.summary, f"val/{kind}" if place else "val")
            log.say(format_scores(each, kind))
        for name, own in task.files(rows).items():
            write_json(log.folder / name, own)
        write_json(log.folder / "eval.json", scores_as_json(scores, step=step, images=len(dataset)))


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
