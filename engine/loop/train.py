"""The training loop. Data, seeds and learning rate are functions of the step, so that resuming is bit-exact."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import profiler

from ...data import Batch, Shard, train_loader, worker_errors
from ...evaluation import format_scores, scores_as_json
from ...formats import write_json
from ...inference import deterministic_kernels, matrix_precision, resolve_precision
from ..checkpoints import add_scores, link_best, prune_checkpoints, restore_state, save_checkpoint
from ..config import ExperimentConfig
from ..distributed.context import DistributedContext, init_distributed
from ..distributed.sharding import unsharded
from ..logging.comparisons import draw_comparisons
from ..logging.progress import ProgressDisplay
from ..logging.run_log import RunLog
from ..optim.optimizers import describe_learning_rate
from ..run import Run, find_starting_point, open_run
from ..run_folder import RunFolder
from ..tasks import write_results_files
from .evaluate import describe_losses, evaluate, validation_losses
from .step import TrainingState, save_bad_batch, train_step
from .stop_requests import Interrupted, StopRequests, stop_requests

FIRST_PROFILED, LAST_PROFILED = 10, 14
"""The steps to profile, counted from 1 at the start or resumption of a run; earlier steps are not representative."""


def train(
    config: ExperimentConfig,
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    device: torch.device | str = "auto",
    profile: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a model, evaluate it and draw predictions, all in the run folder ``output``.

    Returns the content of ``eval.json``: the scores of the last evaluation. ``resume`` continues the run in ``output``;
    ``profile`` also writes a trace of steps 10 to 14. Under ``torchrun`` or ``srun`` every process must call this; rank
    zero writes and prints, and all ranks return the scores.
    """
    with init_distributed(device) as distributed:
        console = (console or Console(stderr=True)) if distributed.is_rank_zero else Console(quiet=True)
        # In a function of its own: a DDP module that outlives its process group can hang when it is freed.
        return _train(config, output, resume, profile, console, distributed)


def _train(
    config: ExperimentConfig,
    output: str | os.PathLike[str],
    resume: bool,
    profile: bool,
    console: Console,
    distributed: DistributedContext,
) -> dict[str, Any]:
    """Run the training of this rank, and keep no reference to its model."""
    with contextlib.ExitStack() as stack:
        display = stack.enter_context(ProgressDisplay(console).shown())
        folder = RunFolder(output)
        start = distributed.on_rank_zero(
            lambda: find_starting_point(stack.enter_context(folder), config, resume, display.say, distributed.device)
        )
        run = open_run(start, folder, distributed, display.say)
        with distributed.fail_together():  # a config error occurs on every rank here; this reports it once
            state = TrainingState.create(run.model, run.config, distributed)
        if start.resumed is not None:
            restore_state(start.resumed, state, display.say)
        recipe = run.config.recipe
        display.say(describe_learning_rate(recipe.optimizer, recipe.batch_size))
        if (warning := recipe.schedule.warmup_warning()) is not None:
            display.say(warning)
        log = None
        if distributed.is_rank_zero:
            folder.rewind(start.step)
            pending_values = {} if start.resumed is None else start.resumed.pending_values
            options = {"start": start.step, "pending_values": pending_values, "device": distributed.device}
            log = stack.enter_context(RunLog(folder.path, run.config, display, **options))
        training = _Training(run, state, display, log)
        trace = folder.path / "profile.json" if profile and distributed.is_rank_zero else None
        with (
            matrix_precision(resolve_precision(recipe.precision, distributed.device)),
            deterministic_kernels(recipe.deterministic),
        ):
            with _profiled(trace, display.say) as after_step:
                training.take_steps(start.step, after_step)
            training.finish()
        return distributed.on_rank_zero(lambda: json.loads(folder.scores.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class _Training:
    """A run in progress: takes its steps, saves and evaluates it; ``log`` is None except on rank zero."""

    run: Run
    state: TrainingState
    display: ProgressDisplay
    log: RunLog | None

    def take_steps(self, start: int, after_step: Callable[[], None]) -> None:
        """Take all steps after ``start``, with checkpoints and evaluations."""
        run, config = self.run, self.run.config
        notify = self.display.say if run.distributed.is_rank_zero else None
        with stop_requests(notify) as stop, worker_errors(), self._interruptions_reported_once():
            self._evaluate_if_due(start, stop)  # the run may have stopped after the checkpoint, before its evaluation
            if self._ends_early(start):
                return
            # This reference keeps the loader alive: if a worker dies, worker_errors asks it for the image being read.
            loader = self._batches(start)
            for step, (batches, waited) in enumerate(_timed(loader, config.recipe.accumulate), start + 1):
                with save_bad_batch(run.folder.path / f"bad_batch_{run.distributed.rank}.safetensors", batches):
                    numbers = train_step(self.state, batches, config, step, stop.number)
                signaled = numbers.pop("signals", 0) > 0
                if self.log is not None:
                    self.log.step(step, numbers, images=config.recipe.batch_size, waited=waited)
                after_step()
                saved = step % config.run.checkpoint_every == 0 or self._is_evaluated(step)
                # All ranks must stop after the same step, so they exchange signals together with the losses. A signal
                # that arrives after that is exchanged with the next step's losses or, if a checkpoint is due, now.
                stopped = run.distributed.all_reduce_max(stop.number) if saved or signaled else 0
                if run.distributed.world_size == 1:
                    stopped = stop.number
                if saved or stopped:
                    self._save(step)
                if stopped:
                    raise Interrupted(stopped, f"step {step}")
                self._evaluate_if_due(step, stop)
                if self._is_evaluated(step) and self._ends_early(step):
                    break

    def finish(self) -> None:
        """Draw predictions of the last step unless the picture exists already."""
        run, model = self.run, self.state.evaluated_model
        with unsharded(model):
            if self.log is not None and not run.folder.picture.exists():
                transform, views = run.config.val.transform, run.config.inference().views
                draw_comparisons(run.task, model, run.val_set, transform, run.folder.picture, views)
        self.display.say(f"results are in {run.folder.path}")

    def _batches(self, start: int) -> Iterator[Batch]:
        """Return an iterator over this rank's micro-batches of all steps after ``start``."""
        run, config = self.run, self.run.config
        return train_loader(
            run.train_set,
            config.train.transform,
            config.run.loader,
            batch_size=config.recipe.batch_size,
            divisor=run.model.size_divisor,
            seed=config.recipe.seed,
            start_step=start,
            end_step=config.recipe.schedule.steps,
            shard=Shard(run.distributed.rank, run.distributed.world_size, config.recipe.accumulate),
            sampling=config.train.sampling,
            mix=config.train.mix,
        )

    def _save(self, step: int) -> None:
        """Write the checkpoint of a step, and delete old checkpoints."""
        run = self.run
        for model in dict.fromkeys((run.model, self.state.evaluated_model)):
            run.distributed.broadcast_buffers_from_rank_zero(model)
        pending_values = {} if self.log is None else self.log.pending_values
        save_checkpoint(run.folder.checkpoints, step, self.state, {**run.description, "pending_values": pending_values})
        if run.distributed.is_rank_zero:
            prune_checkpoints(run.folder.checkpoints, run.config.run.keep_checkpoints)

    def _is_evaluated(self, step: int) -> bool:
        every, last = self.run.config.evaluation.every, self.run.config.recipe.schedule.steps
        return step == last or (every > 0 and step > 0 and step % every == 0)

    def _ends_early(self, step: int) -> bool:
        """Return whether early stopping ends the run after ``step``: the last ``patience`` evaluations did not improve.

        The last step of the schedule is not early.
        """
        config, folder = self.run.config, self.run.folder
        patience, measure = config.evaluation.patience, config.evaluation.patience_for
        if patience is None or step == config.recipe.schedule.steps:
            return False
        higher = self.run.task.higher_is_better
        count = self.run.distributed.on_rank_zero(lambda: folder.evaluations_since_best(measure, higher))
        if count < patience:
            return False
        self.display.say(f"early stopping: the run ends after step {step}: no better {measure} in {count} evaluations")
        return True

    def _evaluate_if_due(self, step: int, stop: StopRequests) -> None:
        """Evaluate a saved step if the config says so and it has no scores yet; update the link to the best checkpoint.

        A signal aborts the evaluation at once, since it may take longer than a scheduler waits; a resumed run repeats
        it.
        """
        if not self._is_evaluated(step):
            return
        folder, distributed = self.run.folder, self.run.distributed
        if distributed.on_rank_zero(folder.evaluated_step) < step:
            with stop.at_once(step):
                self._evaluate(step)
        if distributed.is_rank_zero:
            add_scores(folder.checkpoints, step, folder.scores.read_text(encoding="utf-8"))
            if folder.best_step(self.run.task.higher_is_better) == step:
                link_best(folder.checkpoints, step)

    def _evaluate(self, step: int) -> None:
        """Score the validation split, and write ``eval.json`` and the results files."""
        run, log, model = self.run, self.log, self.state.evaluated_model
        run.distributed.broadcast_buffers_from_rank_zero(model)
        with contextlib.nullcontext() if log is None else log.paused(), unsharded(model):
            evaluated = evaluate(run.task, model, run.val_set, run.config, run.distributed, self.display)
            losses = {}
            if run.config.evaluation.losses:
                losses = validation_losses(model, run.val_set, run.config, run.distributed)
            if log is None or evaluated is None:
                return
            rows, scores = evaluated
            for index, (name, scored) in enumerate(scores.items()):
                numbers = scored.summary if index else {**scored.summary, **losses}
                log.record(step, numbers, f"val/{name}" if index else "val")
                self.display.say(format_scores(scored, name))
            facts: dict[str, Any] = {"step": step, "images": len(run.val_set)}
            if losses:
                self.display.say(describe_losses(losses))
                facts["losses"] = losses
            write_results_files(run.task, rows, run.folder.path)
            write_json(run.folder.scores, scores_as_json(scores, **facts))
            run.folder.picture.unlink(missing_ok=True)  # of an earlier step, if the run was resumed with more patience

    @contextlib.contextmanager
    def _interruptions_reported_once(self) -> Iterator[None]:
        """Mark :class:`Interrupted` as reported on all ranks except rank zero."""
        try:
            yield
        except Interrupted as interrupted:
            interrupted.reported_by_other_rank = not self.run.distributed.is_rank_zero
            raise


def _timed(batches: Iterator[Batch], count: int) -> Iterator[tuple[Sequence[Batch], float]]:
    """Yield (the ``count`` micro-batches of a step, seconds spent waiting for them) for each step."""
    started, group = time.perf_counter(), []
    for batch in batches:
        group.append(batch)
        if len(group) == count:
            yield group, time.perf_counter() - started
            started, group = time.perf_counter(), []


@contextlib.contextmanager
def _profiled(path: Path | None, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Yield a function to call after every step.

    After step ``LAST_PROFILED`` a trace in Chrome's format is written to ``path``; with None, nothing is profiled.
    """
    if path is None:
        yield lambda: None
        return
    path.unlink(missing_ok=True)

    def write(trace: profiler.profile) -> None:
        trace.export_chrome_trace(str(path))
        say(f"a trace of steps {FIRST_PROFILED} to {LAST_PROFILED} is in {path}: open it in https://ui.perfetto.dev")

    activities = [profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(profiler.ProfilerActivity.CUDA)
    active = LAST_PROFILED - FIRST_PROFILED + 1
    phases = profiler.schedule(wait=FIRST_PROFILED - 2, warmup=1, active=active, repeat=1)
    with profiler.profile(activities=activities, schedule=phases, on_trace_ready=write) as trace:
        yield trace.step
    if not path.exists():
        say(f"no trace was written: the run ended before its step {FIRST_PROFILED}")
