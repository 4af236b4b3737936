"""The training loop. Data, seeds and learning rate are functions of the step, so resume is exact."""

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..backbones import load_backbone_weights
from ..data import Batch, Dataset, Policy, Share, build_dataset, require_same_classes, train_loader, worker_faults
from ..evaluation import format_scores, write_results
from ..models import Model, build_model, transfer_weights
from ..structures import UsageError, refusals_as_usage_errors
from .bad_batch import keep_bad_batch
from .checkpoint import Checkpoint, add_scores, save_checkpoint
from .checkpoint_series import mark_best, prune_checkpoints
from .config import ExperimentConfig
from .determinism import same_bits
from .early_stopping import evaluations_since_best
from .evaluate import evaluate, scores_as_json, write_json
from .learning_rate import describe_rate
from .loss_bands import band_warnings
from .pictures import draw_comparisons
from .precision import matrix_precision
from .processes import Processes, join_processes, peer_faults
from .profiling import profiled
from .restore import load_model, load_state, load_weights
from .run_folder import RunFolder, describe_data, describe_start, require_same_data, require_same_processes
from .run_log import RunLog
from .sharding import whole
from .step import TrainingState, seed_step, train_step
from .stop_requests import Interrupted, stop_requests
from .tasks import Task, pick_task, require_truth
from .validation_loss import describe_losses, validation_losses

Say = Callable[[str], None]


def train(
    config: ExperimentConfig,
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    device: torch.device | str = "cpu",
    bad_data: Policy = "error",
    profile: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train, evaluate and draw; everything is written to the folder ``output``. Returns what ``eval.json`` holds.

    ``profile`` writes a trace of a few steps there, too.
    Under ``torchrun`` or ``srun`` every process calls this, and they train together; the first one writes and speaks.
    """
    with join_processes(device) as processes, peer_faults(), contextlib.ExitStack() as stack:
        console = (console or Console(stderr=True)) if processes.is_first else Console(quiet=True)
        say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
        folder, opened = RunFolder(output), None
        with processes.together():
            if processes.is_first:
                stack.enter_context(folder)
                opened = folder.resume(config, say) if resume else (folder.start(config), None)
        opened = processes.share(opened)
        assert opened is not None, "the first process opened the folder"
        config, checkpoint = opened
        with processes.together():
            run = _Run.of(config, folder, processes, checkpoint, bad_data, say)
        with (
            processes.together()
        ):  # after that block: it needs all processes, and of this config it fails on all or none
            state = TrainingState.of(run.model, config, processes)
        if config.optimizer.lr_batch_size is not None:
            say(describe_rate(config))
        start = 0 if checkpoint is None else checkpoint.step
        if checkpoint is not None:
            load_state(checkpoint, state)
        log = None
        if processes.is_first:
            folder.rewind(start)
            unlogged = {} if checkpoint is None else checkpoint.unlogged
            log = RunLog(folder.path, config, start=start, unlogged=unlogged, device=processes.device, console=console)
            stack.enter_context(log)
        trace = folder.path / "profile.json" if profile and processes.is_first else None
        with matrix_precision(config.precision), same_bits(config.deterministic):
            with profiled(trace, say) as after_step:
                run.take_steps(state, start, log, after_step)
            run.finish(state, log)
        return processes.share(json.loads(folder.scores.read_text()) if processes.is_first else {})


@dataclass(frozen=True, slots=True)
class _Run:
    """What stays the same from the first step to the last."""

    config: ExperimentConfig
    folder: RunFolder
    processes: Processes
    train_set: Dataset
    val_set: Dataset
    model: Model
    task: Task
    description: Mapping[str, Any]
    """What its checkpoints say of it beside their step."""

    @classmethod
    def of(
        cls,
        config: ExperimentConfig,
        folder: RunFolder,
        processes: Processes,
        checkpoint: Checkpoint | None,
        bad_data: Policy,
        say: Say,
    ) -> "_Run":
        """Data and model as they are before the first step; UsageError or DataError where something does not fit."""
        train_set, val_set = _open_data(config, folder.path if processes.is_first else None, bad_data, say)
        data = describe_data(train_set, val_set)
        if checkpoint is not None:
            require_same_processes(checkpoint, processes.count)
            require_same_data(checkpoint, data)
        for dataset in (train_set, val_set):
            require_truth(config.model.head, dataset)
        share = processes.count * config.accumulate
        if config.batch_size % share:
            raise UsageError(
                f"batch_size {config.batch_size} cannot be shared out evenly to {processes.count} processes, "
                f"accumulate {config.accumulate}",
                f"choose a multiple of {share}: it is the images of a whole step",
            )
        seed_step(config.seed, 0)
        with refusals_as_usage_errors():
            names = {task: classes.names for task, classes in train_set.classes.items()}
            model = build_model(config.model, names).to(processes.device)
        if checkpoint is not None:
            load_weights(checkpoint, model)
        elif config.model.weights is not None:
            say(load_backbone_weights(model.backbone, config.model.weights))
        elif config.start_from is not None:
            say(f"{config.start_from}: {transfer_weights(model, load_model(config.start_from))}")
        task = pick_task(model.head, train_set.classes, config.inference)
        description = {"config": config.model_dump(mode="json"), "origin": describe_start(config, checkpoint), **data}
        return cls(config, folder, processes, train_set, val_set, model.train(), task, description)

    def take_steps(self, state: TrainingState, start: int, log: RunLog | None, after_step: Callable[[], None]) -> None:
        """From the step after ``start`` to the last, with checkpoints and evaluations."""
        config, processes, steps = self.config, self.processes, self.config.schedule.steps
        self._evaluate_if_due(state, start, log)  # a run may have ended between the checkpoint and its evaluation
        if self._ends_early(state, start, log):
            return
        source = self._batches(start)  # outlives the loop: where a worker dies, it knows what that one was reading
        with stop_requests() as stop, worker_faults():
            for step, (batches, waited) in enumerate(_timed(source, config.accumulate), start + 1):
                with keep_bad_batch(self.folder.path / f"bad_batch_{processes.rank}.safetensors", batches):
                    numbers = train_step(state, batches, config, step)
                if log is not None:
                    means = log.step(step, numbers, images=config.batch_size, waited=waited)
                    for warning in band_warnings(config, step, means):
                        log.say(warning)
                after_step()
                stopped = processes.greatest(stop[0] if stop else 0)
                if step % config.checkpoint_every == 0 or step == steps or stopped:
                    self._save(state, step, log)
                if stopped:
                    interrupted = Interrupted(stopped, step)
                    interrupted.told_elsewhere = not processes.is_first
                    raise interrupted
                self._evaluate_if_due(state, step, log)
                if self._is_evaluated(step) and self._ends_early(state, step, log):
                    break

    def finish(self, state: TrainingState, log: RunLog | None) -> None:
        """A picture of the last step, where it is not there yet."""
        with whole(state.best_model):
            if log is not None and not self.folder.picture.exists():
                draw_comparisons(
                    self.task, state.best_model, self.val_set, self.config.val.transform, self.folder.picture
                )
        if log is not None:
            log.say(f"results are in {self.folder.path}")

    def _batches(self, start: int) -> Iterator[Batch]:
        """This process's micro-batches of all steps after ``start``."""
        config, processes = self.config, self.processes
        return train_loader(
            self.train_set,
            config.train.transform,
            config.loader,
            batch_size=config.batch_size,
            divisor=self.model.size_divisor,
            seed=config.seed,
            start_step=start,
            end_step=config.schedule.steps,
            share=Share(processes.rank, processes.count, config.accumulate),
            sampling=config.sampling,
            mix=config.train.mix,
        )

    def _save(self, state: TrainingState, step: int, log: RunLog | None) -> None:
        for model in dict.fromkeys((self.model, state.best_model)):
            self.processes.same_buffers(model)
        description = {**self.description, "unlogged": {} if log is None else log.unlogged}
        save_checkpoint(self.folder.checkpoints, step, state, description)
        if self.processes.is_first:
            prune_checkpoints(self.folder.checkpoints, self.config.keep_checkpoints)

    def _is_evaluated(self, step: int) -> bool:
        every = self.config.eval_every
        return step == self.config.schedule.steps or (every > 0 and step % every == 0)

    def _ends_early(self, state: TrainingState, step: int, log: RunLog | None) -> bool:
        """Whether there is no patience left before the last step; what was trained so far is saved."""
        patience, measure, first = self.config.patience, self.config.patience_for, self.processes.is_first
        if patience is None or step == self.config.schedule.steps:
            return False
        waited = evaluations_since_best(self.folder.path / "metrics.jsonl", measure) if first else 0
        if self.processes.share(waited) < patience:
            return False
        if self.processes.share(self.folder.saved_step()) < step:
            self._save(state, step, log)
        if log is not None:
            log.say(f"the run ends after step {step}: {waited} evaluations brought no better {measure}")
        return True

    def _evaluate_if_due(self, state: TrainingState, step: int, log: RunLog | None) -> None:
        """Score the step if the config wants it and it is not yet scored; the best checkpoint stays."""
        if not self._is_evaluated(step) or step == 0:
            return
        if self.processes.share(self.folder.evaluated_step()) < step:
            self._evaluate(state, step, log)
        is_best = self.processes.share(self.folder.best_step()) == step
        if is_best and self.processes.share(self.folder.saved_step()) < step:
            self._save(state, step, log)
        if self.processes.is_first:
            if self.folder.saved_step() == step:
                add_scores(self.folder.checkpoints, step, self.folder.scores.read_text())
            if is_best:
                mark_best(self.folder.checkpoints, step)

    def _evaluate(self, state: TrainingState, step: int, log: RunLog | None) -> None:
        """Score the validation split; ``eval.json`` and the results files hold the newest."""
        self.processes.same_buffers(state.best_model)
        with contextlib.nullcontext() if log is None else log.paused(), whole(state.best_model):
            found = evaluate(self.task, state.best_model, self.val_set, self.config, self.processes)
            losses = {}
            if self.config.val_loss:
                losses = validation_losses(state.best_model, self.val_set, self.config, self.processes)
            if log is None or found is None:
                return
            rows, scores = found
            for place, (kind, each) in enumerate(scores.items()):
                numbers = each.summary if place else {**each.summary, **losses}
                log.record(step, numbers, f"val/{kind}" if place else "val")
                log.say(format_scores(each, kind))
            facts: dict[str, Any] = {"step": step, "images": len(self.val_set)}
            if losses:
                log.say(describe_losses(losses))
                facts["losses"] = losses
            for name, own in self.task.files(rows).items():
                write_results(log.folder / name, own)
            write_json(self.folder.scores, scores_as_json(scores, **facts))
            self.folder.picture.unlink(missing_ok=True)  # of an earlier step, where a run with less patience ended


def _open_data(config: ExperimentConfig, folder: Path | None, bad_data: Policy, say: Say) -> tuple[Dataset, Dataset]:
    """Both data sets, validated; under ``skip`` what was left out is reported beside the run."""
    data = []
    for split in ("train", "val"):
        dataset = build_dataset(getattr(config, split).dataset, bad_data)
        if folder is not None:
            dataset.report.write(folder / ("data_report.json" if split == "train" else f"data_report_{split}.json"))
        say(f"{split}: {dataset.report.summary()}")
        data.append(dataset)
    require_same_classes(data[0].classes, data[1].classes)
    return data[0], data[1]


def _timed(batches: Iterator[Batch], count: int) -> Iterator[tuple[Sequence[Batch], float]]:
    """The micro-batches of each step with the seconds they were waited for."""
    before = time.perf_counter()
    for group in zip(*[batches] * count, strict=True):
        yield group, time.perf_counter() - before
        before = time.perf_counter()
