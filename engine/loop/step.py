"""One step of a training: everything that changes in it, and the change."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.distributed.fsdp import FSDPModule

from ...data import Batch
from ...models import Model
from ...ops import shared_generator, split_losses, total_loss
from ...structures import MemoryFullError, NonFiniteError, is_out_of_memory
from ..config import ExperimentConfig
from ..distributed.context import DistributedContext
from ..distributed.sharding import full_tensor, shard
from ..optim.ema import ModelEMA
from ..optim.learning_rate import scaled_learning_rate
from ..optim.optimizers import build_optimizer, set_learning_rate
from .precision import autocast


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a step changes. ``parallel`` is the model, or what averages its gradients over the processes."""

    model: Model
    optimizer: optim.Optimizer
    scaler: torch.amp.GradScaler
    average: ModelEMA | None
    parallel: nn.Module
    processes: DistributedContext

    @classmethod
    def of(cls, model: Model, config: ExperimentConfig, processes: DistributedContext | None = None) -> "TrainingState":
        """The state before the first step."""
        processes = processes or DistributedContext(model.device)
        if config.recipe.channels_last:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if config.recipe.compile:
            model.compile_dense()
        average = None if config.recipe.ema_decay is None else ModelEMA(model, config.recipe.ema_decay)
        if config.recipe.parallel == "fsdp":
            for each in (model,) if average is None else (model, average.model):
                shard(each, processes)
        return cls(
            model,
            build_optimizer(config.recipe.optimizer, model),
            torch.amp.GradScaler(model.device.type, enabled=config.recipe.precision == "fp16"),
            average,
            processes.wrap_ddp(model, config.recipe.accumulate > 1) if config.recipe.parallel == "ddp" else model,
            processes,
        )

    @property
    def evaluated_model(self) -> Model:
        """What is evaluated: the averaged weights where there are any."""
        return self.model if self.average is None else self.average.model


def train_step(state: TrainingState, batches: Sequence[Batch], config: ExperimentConfig, step: int) -> dict[str, float]:
    """Do one update, number ``step`` counted from 1, with this process's micro-batches.

    Returns its losses, gradient norm and learning rate, the means over micro-batches and processes; in steps that are
    logged also the means of the numbers to watch that the head returns. Raises :class:`NonFiniteError` before the
    weights are touched, naming the images. Under ``fp16`` gradients that overflow skip the update, and ``skipped`` is
    1, otherwise 0.
    """
    seed_step(config.recipe.seed, step, state.processes.rank)
    lr = scaled_learning_rate(config) * config.recipe.schedule.factor(step - 1)
    set_learning_rate(state.optimizer, lr)
    with _memory_of(step, batches):
        with shared_generator(_seed_of(config.recipe.seed, step), state.model.device):
            losses, metrics = _accumulate(state, batches, config)
        state.scaler.unscale_(state.optimizer)
        norm = full_tensor(nn.utils.clip_grad_norm_(state.model.parameters(), config.recipe.clip_norm or math.inf))
        total = torch.stack(list(losses.values())).sum()
        watched = metrics if config.is_logged(step) else {}
        numbers, extras = _read_means(state.processes, losses | {"loss": total, "grad_norm": norm}, watched)
        if state.scaler.is_enabled():
            overflow = not math.isfinite(numbers["grad_norm"]) and state.scaler.get_scale() >= 1
            numbers["skipped"] = float(overflow)
            if overflow:
                numbers["grad_norm"] = 0.0  # what overflowed is no gradient; the scaler takes no step with it
        if not all(math.isfinite(value) for value in numbers.values()):
            raise _not_finite(state.processes, step, numbers, batches)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update(state.model, step)
    return numbers | extras | {"lr": lr}


def _read_means(
    processes: DistributedContext, scalars: Mapping[str, Tensor], metrics: Mapping[str, Sequence[Tensor]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the means over all processes of scalars, and of the values of each metric where it has any.

    One exchange between processes and one read from the device serve all numbers of a step.
    """
    columns = [torch.cat([part.detach().flatten().float() for part in parts]) for parts in metrics.values()]
    sums, counts = [column.sum() for column in columns], [column.new_full((), len(column)) for column in columns]
    values = processes.all_reduce_mean(torch.stack([*scalars.values(), *sums, *counts])).tolist()
    sums, counts = values[len(scalars) : len(scalars) + len(metrics)], values[len(scalars) + len(metrics) :]
    means = {name: total / count for name, total, count in zip(metrics, sums, counts, strict=True) if count}
    return dict(zip(scalars, values, strict=False)), means


def _accumulate(
    state: TrainingState, batches: Sequence[Batch], config: ExperimentConfig
) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
    """Leave the mean gradient in the parameters.

    Returns the mean of each loss, detached, and the values of each number to watch, micro-batch by micro-batch.
    """
    state.optimizer.zero_grad(set_to_none=True)
    means: dict[str, Tensor] = {}
    metrics: dict[str, list[Tensor]] = {}
    for number, batch in enumerate(batches, start=1):
        batch = batch.to(state.model.device)
        with _exchange(state.parallel, number == len(batches)):
            with autocast(config.recipe.precision, batch.images.pixels.device):
                outputs: dict[str, Tensor] = state.parallel(batch.images, batch.targets)
            state.scaler.scale(total_loss(outputs) / len(batches)).backward()
        losses, values = split_losses(outputs)
        for name, loss in losses.items():
            means[name] = means.get(name, 0) + loss.detach() / len(batches)
        for name, value in values.items():
            metrics.setdefault(name, []).append(value)
    return means, metrics


def _exchange(parallel: nn.Module, wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """Gradients go to the other processes once a step, with the last micro-batch."""
    if isinstance(parallel, FSDPModule):
        parallel.set_requires_gradient_sync(wanted)
        return contextlib.nullcontext()
    no_sync = getattr(parallel, "no_sync", contextlib.nullcontext)
    return contextlib.nullcontext() if wanted else no_sync()


def _not_finite(
    processes: DistributedContext, step: int, numbers: dict[str, float], batches: Sequence[Batch]
) -> NonFiniteError:
    terms = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    ids = [image_id for batch in batches for image_id in batch.image_ids]
    shown = ", ".join(str(image_id) for own in processes.all_gather(ids) for image_id in own)
    fix = "lower optimizer.lr in a new run (start_from takes the weights over), or look at these images"
    fault = NonFiniteError(f"step {step}: {terms}; images {shown}", fix)
    fault.reported_by_other_rank = not processes.is_rank_zero
    return fault


@contextlib.contextmanager
def _memory_of(step: int, batches: Sequence[Batch]) -> Iterator[None]:
    """Where a step does not fit into memory, say with which images."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        sizes = ", ".join(f"{height}x{width}" for batch in batches for height, width in batch.images.sizes.tolist())
        raise MemoryFullError(
            f"step {step} did not fit with images of {sizes}",
            "raise accumulate, or lower batch_size or the transform's sizes, in a new run",
        ) from error


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Make every random draw of a process's step a function of these, so that resuming needs no generator's state."""
    torch.manual_seed(_seed_of(seed, step, rank))


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
