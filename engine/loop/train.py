"""The training loop. Data, seeds and learning rate are functions of the step, so resume is exact."""

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from ...data import Batch, Shard, train_loader, worker_errors
from ...evaluation import format_scores
from ...formats import write_json, write_results
from ..checkpoints.checkpoint import add_scores, save_checkpoint
from ..checkpoints.restore import load_state
from ..checkpoints.series import link_best, prune_checkpoints
from ..config import ExperimentConfig
from ..distributed.context import init_distributed
from ..distributed.sharding import whole
from ..logging.comparisons import draw_comparisons
from ..logging.expected_ranges import range_warnings
from ..logging.run_log import RunLog
from ..optim.learning_rate import describe_learning_rate, warmup_warning
from ..run import Run, open_run
from ..run_folder import RunFolder
from .bad_batch import save_bad_batch
from .determinism import deterministic_kernels
from .early_stopping import evaluations_since_best
from .evaluate import evaluate, scores_as_json
from .precision import matrix_precision
from .profiling import profiled
from .step import TrainingState, train_step
from .stop_requests import Interrupted, StopRequests, stop_requests
from .validation_loss import describe_losses, validation_losses


def train(
    config: ExperimentConfig,
    output: str | os.PathLike[str],
    *,
    resume: bool = False,
    device: torch.device | str = "auto",
    profile: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train, evaluate and draw; everything is written to the folder ``output``. Returns what ``eval.json`` holds.

    ``profile`` writes a trace of a few steps there, too.
    Under ``torchrun`` or ``srun`` every process calls this, and they train together; the first one writes and speaks.
    """
    with init_distributed(device) as processes, contextlib.ExitStack() as stack:
        console = (console or Console(stderr=True)) if processes.is_rank_zero else Console(quiet=True)
        say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
        folder = RunFolder(output)
        starting_point = processes.on_rank_zero(lambda: stack.enter_context(folder).open(config, resume, say))
        with processes.fail_together():
            run = open_run(starting_point, folder, processes, say)
        with (
            processes.fail_together()
        ):  # apart from the above: all must get here, and of a config it fails on all or none
            state = TrainingState.of(run.model, run.config, processes)
        say(describe_learning_rate(run.config))
        if (warning := warmup_warning(run.config)) is not None:
            say(warning)
        pending_values = {}
        if starting_point.resumed is not None:
            pending_values = starting_point.resumed.pending_values
            load_state(starting_point.resumed, state, say)
        log = None
        if processes.is_rank_zero:
            folder.rewind(starting_point.step)
            options = {
                "start": starting_point.step,
                "pending_values": pending_values,
                "device": processes.device,
                "console": console,
            }
            log = stack.enter_context(RunLog(folder.path, run.config, **options))
        training = _Training(run, state, log)
        trace = folder.path / "profile.json" if profile and processes.is_rank_zero else None
        with matrix_precision(run.config.recipe.precision), deterministic_kernels(run.config.recipe.deterministic):
            with profiled(trace, say) as after_step:
                training.take_steps(starting_point.step, after_step)
            training.finish()
        return processes.on_rank_zero(lambda: json.loads(folder.scores.read_text()))


@dataclass(frozen=True, slots=True)
class _Training:
    """A run and what its steps change; the first process has a ``log``."""

    run: Run
    state: TrainingState
    log: RunLog | None

    def take_steps(self, start: int, after_step: Callable[[], None]) -> None:
        """From the step after ``start`` to the last, with checkpoints and evaluations."""
        config, processes = self.run.config, self.run.processes
        notify = None if self.log is None else self.log.say
        with stop_requests(notify) as stop, worker_errors(), self._report_interruption_once():
            self._evaluate_if_due(start, stop)  # a run may have ended between the checkpoint and its evaluation
            if self._ends_early(start):
                return
            source = self._batches(start)  # outlives the loop: where a worker dies, it knows what that one was reading
            for step, (batches, waited) in enumerate(_timed(source, config.recipe.accumulate), start + 1):
                with save_bad_batch(self.run.folder.path / f"bad_batch_{processes.rank}.safetensors", batches):
                    numbers = train_step(self.state, batches, config, step)
                if self.log is not None:
                    means = self.log.step(step, numbers, images=config.recipe.batch_size, waited=waited)
                    for warning in range_warnings(config, step, means):
                        self.log.say(warning)
                after_step()
                stopped = processes.all_reduce_max(stop.number)
                if step % config.run.checkpoint_every == 0 or self._is_evaluated(step) or stopped:
                    self._save(step)
                if stopped:
                    raise Interrupted(stopped, step)
                self._evaluate_if_due(step, stop)
                if self._is_evaluated(step) and self._ends_early(step):
                    break

    def finish(self) -> None:
        """A picture of the last step, where it is not there yet."""
        run = self.run
        with whole(self.state.evaluated_model):
            if self.log is not None and not run.folder.picture.exists():
                draw_comparisons(
                    run.task, self.state.evaluated_model, run.val_set, run.config.val.transform, run.folder.picture
                )
        if self.log is not None:
            self.log.say(f"results are in {run.folder.path}")

    def _batches(self, start: int) -> Iterator[Batch]:
        """This process's micro-batches of all steps after ``start``."""
        config, processes = self.run.config, self.run.processes
        return train_loader(
            self.run.train_set,
            config.train.transform,
            config.run.loader,
            batch_size=config.recipe.batch_size,
            divisor=self.run.model.size_divisor,
            seed=config.recipe.seed,
            start_step=start,
            end_step=config.recipe.schedule.steps,
            share=Shard(processes.rank, processes.count, config.recipe.accumulate),
            sampling=config.train.sampling,
            mix=config.train.mix,
        )

    def _save(self, step: int) -> None:
        run = self.run
        for model in dict.fromkeys((run.model, self.state.evaluated_model)):
            run.processes.broadcast_buffers_from_rank_zero(model)
        pending_values = {} if self.log is None else self.log.pending_values
        save_checkpoint(run.folder.checkpoints, step, self.state, {**run.description, "pending_values": pending_values})
        if run.processes.is_rank_zero:
            prune_checkpoints(run.folder.checkpoints, run.config.run.keep_checkpoints)

    def _is_evaluated(self, step: int) -> bool:
        every, last = self.run.config.evaluation.every, self.run.config.recipe.schedule.steps
        return step == last or (every > 0 and step > 0 and step % every == 0)

    def _ends_early(self, step: int) -> bool:
        """Whether the evaluations leave no patience for the steps that remain."""
        config, folder = self.run.config, self.run.folder
        patience, measure = config.evaluation.patience, config.evaluation.patience_for
        if patience is None or step == config.recipe.schedule.steps:
            return False
        waited = self.run.processes.on_rank_zero(lambda: evaluations_since_best(folder.path / "metrics.jsonl", measure))
        if waited < patience:
            return False
        if self.log is not None:
            self.log.say(f"the run ends after step {step}: {waited} evaluations brought no better {measure}")
        return True

    def _evaluate_if_due(self, step: int, stop: StopRequests) -> None:
        """Score the step, which is saved, if the config wants it and it is not yet scored; the best checkpoint stays.

        An evaluation may take longer than a scheduler waits after its signal: it is given up, and a resumed run begins
        it again.
        """
        if not self._is_evaluated(step):
            return
        folder, processes = self.run.folder, self.run.processes
        if processes.on_rank_zero(folder.evaluated_step) < step:
            with stop.at_once(step):
                self._evaluate(step)
        if processes.is_rank_zero:
            add_scores(folder.checkpoints, step, folder.scores.read_text())
            if folder.best_step() == step:
                link_best(folder.checkpoints, step)

    def _evaluate(self, step: int) -> None:
        """Score the validation split; ``eval.json`` and the results files hold the newest."""
        run, log, model = self.run, self.log, self.state.evaluated_model
        run.processes.broadcast_buffers_from_rank_zero(model)
        with contextlib.nullcontext() if log is None else log.paused(), whole(model):
            found = evaluate(run.task, model, run.val_set, run.config, run.processes)
            losses = {}
            if run.config.evaluation.losses:
                losses = validation_losses(model, run.val_set, run.config, run.processes)
            if log is None or found is None:
                return
            rows, scores = found
            for place, (kind, each) in enumerate(scores.items()):
                numbers = each.summary if place else {**each.summary, **losses}
                log.record(step, numbers, f"val/{kind}" if place else "val")
                log.say(format_scores(each, kind))
            facts: dict[str, Any] = {"step": step, "images": len(run.val_set)}
            if losses:
                log.say(describe_losses(losses))
                facts["losses"] = losses
            for name, own in run.task.files(rows).items():
                write_results(log.folder / name, own)
            write_json(run.folder.scores, scores_as_json(scores, **facts))
            run.folder.picture.unlink(missing_ok=True)  # of an earlier step, where a run with less patience ended

    @contextlib.contextmanager
    def _report_interruption_once(self) -> Iterator[None]:
        """A signal stops all processes, and the first one says so."""
        try:
            yield
        except Interrupted as interrupted:
            interrupted.reported_by_other_rank = not self.run.processes.is_rank_zero
            raise


def _timed(batches: Iterator[Batch], count: int) -> Iterator[tuple[Sequence[Batch], float]]:
    """The micro-batches of each step with the seconds they were waited for."""
    before = time.perf_counter()
    for group in zip(*[batches] * count, strict=True):
        yield group, time.perf_counter() - before
        before = time.perf_counter()
