"""A training step: the state it updates, the update itself, and the errors it may raise."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn, optim
from torch.distributed.fsdp import FSDPModule

from ...data import Batch
from ...inference.numerics import autocast, resolve_precision
from ...models import Model
from ...ops import shared_generator, split_losses, total_loss
from ...structures import FieldTable, MemoryFullError, NonFiniteError, is_out_of_memory
from ..config import ExperimentConfig
from ..distributed.context import DistributedContext
from ..distributed.sharding import full_tensor, shard_model
from ..optim.ema import ModelEMA
from ..optim.optimizers import build_optimizer, scaled_learning_rate, set_learning_rate


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The model, optimizer, gradient scaler and EMA that a training step updates."""

    model: Model
    optimizer: optim.Optimizer
    scaler: torch.amp.GradScaler
    average: ModelEMA | None
    parallel: nn.Module
    """The module to call in training: the model itself, or its DDP wrapper."""
    distributed: DistributedContext

    @classmethod
    def create(
        cls, model: Model, config: ExperimentConfig, distributed: DistributedContext | None = None
    ) -> "TrainingState":
        """Return the state before the first step; the model is compiled, sharded or wrapped as the config says."""
        distributed = distributed or DistributedContext(model.device)
        recipe = config.recipe.resolve(model.device)
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if recipe.compile:
            model.compile_dense()
        average = None if recipe.ema_decay is None else ModelEMA(model, recipe.ema_decay)
        if recipe.parallel == "fsdp":
            for sharded in (model,) if average is None else (model, average.model):
                shard_model(sharded, distributed)
        return cls(
            model,
            build_optimizer(recipe.optimizer, model),
            torch.amp.GradScaler(model.device.type, enabled=recipe.precision == "fp16"),
            average,
            distributed.wrap_ddp(model, recipe.accumulate > 1) if recipe.parallel == "ddp" else model,
            distributed,
        )

    @property
    def evaluated_model(self) -> Model:
        """The model to evaluate: the EMA model if there is one, otherwise the trained model."""
        return self.model if self.average is None else self.average.model


def train_step(
    state: TrainingState, batches: Sequence[Batch], config: ExperimentConfig, step: int, signal_number: int = 0
) -> dict[str, float]:
    """Take training step ``step`` (counted from 1) with this rank's micro-batches, and return the values to log.

    These are the losses, their sum ``loss``, the gradient norm ``grad_norm`` before clipping and the learning rate
    ``lr``, averaged over micro-batches and ranks; at log steps also the means of the head's metrics. With ``fp16``,
    overflowing gradients skip the update: ``skipped`` is then 1, otherwise 0. ``signal_number`` is the number of the
    signal that this process received, or 0; ``signals`` is returned, and above 0, only if any rank received one.
    Raises :class:`NonFiniteError`, naming the images, before the weights change.
    """
    seed_step(config.recipe.seed, step, state.distributed.rank)
    state.model.set_progress((step - 1) / config.recipe.schedule.steps)
    lr = scaled_learning_rate(config.recipe.optimizer, config.recipe.batch_size)
    lr *= config.recipe.schedule.factor(step - 1)
    set_learning_rate(state.optimizer, lr)
    with _memory_errors(step, batches):
        with shared_generator(_seed_from(config.recipe.seed, step), state.model.device):
            losses, metrics = _accumulate(state, batches, config)
        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in state.model.parameters() if p.grad is not None])
        total = torch.stack(list(losses.values())).sum()
        metrics = metrics if config.is_logged(step) else {}
        scalars = losses | {"loss": total, "grad_norm": full_tensor(norm)}
        scalars["signals"] = total.new_tensor(float(signal_number > 0))
        numbers, metric_means = _read_means(state.distributed, scalars, metrics)
        if not numbers["signals"]:
            del numbers["signals"]
        if state.scaler.is_enabled():
            overflow = not math.isfinite(numbers["grad_norm"]) and state.scaler.get_scale() >= 1
            numbers["skipped"] = float(overflow)
            if overflow:
                numbers["grad_norm"] = 0.0  # not an error: the scaler skips this update
        if not all(math.isfinite(value) for value in numbers.values()):
            raise _non_finite_error(state.distributed, step, numbers, batches)
        clip_norm = config.recipe.clip_norm
        # Most gradients need no clipping. Near the limit, the margin of 1 % leaves the decision to torch's function.
        if clip_norm is not None and numbers["grad_norm"] > 0.99 * clip_norm:
            nn.utils.clip_grads_with_norm_(state.model.parameters(), clip_norm, norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update(state.model, step)
    return numbers | metric_means | {"lr": lr}


def _read_means(
    distributed: DistributedContext, scalars: Mapping[str, Tensor], metrics: Mapping[str, Sequence[Tensor]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the means over all ranks of the scalars, and of the values of each metric that are not NaN.

    Metrics without such a value are left out.

    All values share one all-reduce and one copy from the device.
    """
    columns = [torch.cat([part.detach().flatten().float() for part in parts]) for parts in metrics.values()]
    sums = [column.nansum() for column in columns]
    counts = [column.isnan().logical_not().sum() for column in columns]
    means = distributed.all_reduce_mean(torch.stack([*scalars.values(), *sums, *counts])).tolist()
    sums_start, counts_start = len(scalars), len(scalars) + len(metrics)
    totals = zip(metrics, means[sums_start:counts_start], means[counts_start:], strict=True)
    return dict(zip(scalars, means[:sums_start], strict=True)), {
        name: total / count for name, total, count in totals if count
    }


def _accumulate(
    state: TrainingState, batches: Sequence[Batch], config: ExperimentConfig
) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
    """Run the forward and backward passes of all micro-batches, and leave the mean gradient in the parameters.

    Returns the mean of each loss, detached, and the values of each metric, with one tensor per micro-batch.
    """
    state.optimizer.zero_grad(set_to_none=True)
    means: dict[str, Tensor] = {}
    metrics: dict[str, list[Tensor]] = {}
    device = state.model.device
    precision = resolve_precision(config.recipe.precision, device)
    for number, batch in enumerate(batches, start=1):
        batch = batch.to(device)
        with _gradient_exchange(state.parallel, enabled=number == len(batches)):
            with autocast(precision, device):
                outputs: dict[str, Tensor] = state.parallel(batch.images, batch.targets)
            state.scaler.scale(total_loss(outputs) / len(batches)).backward()
        losses, values = split_losses(outputs)
        for name, loss in losses.items():
            means[name] = means.get(name, 0) + loss.detach() / len(batches)
        for name, value in values.items():
            metrics.setdefault(name, []).append(value)
    return means, metrics


def _gradient_exchange(parallel: nn.Module, enabled: bool) -> contextlib.AbstractContextManager[Any]:
    """Return the context for a pass that synchronizes gradients between ranks if ``enabled``, and otherwise not."""
    if isinstance(parallel, FSDPModule):
        parallel.set_requires_gradient_sync(enabled)
        return contextlib.nullcontext()
    no_sync = getattr(parallel, "no_sync", contextlib.nullcontext)
    return contextlib.nullcontext() if enabled else no_sync()


def _non_finite_error(
    distributed: DistributedContext, step: int, numbers: dict[str, float], batches: Sequence[Batch]
) -> NonFiniteError:
    """Return an error naming the values and the images of all ranks; all ranks must call this together."""
    terms = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    ids = [image_id for batch in batches for image_id in batch.image_ids]
    shown = ", ".join(str(image_id) for ids_of_rank in distributed.all_gather(ids) for image_id in ids_of_rank)
    fix = "lower optimizer.lr in a new run (start_from takes over the weights), or check these images"
    error = NonFiniteError(f"step {step}: {terms}; images {shown}", fix)
    error.reported_by_other_rank = not distributed.is_rank_zero
    return error


@contextlib.contextmanager
def _memory_errors(step: int, batches: Sequence[Batch]) -> Iterator[None]:
    """Convert torch's out-of-memory errors to a :class:`MemoryFullError` that names the sizes of the images."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        sizes = ", ".join(f"{height}x{width}" for batch in batches for height, width in batch.images.size_list())
        raise MemoryFullError(
            f"step {step} ran out of memory with images of {sizes} pixels",
            "raise accumulate, or lower batch_size or the transform's sizes, in a new run",
        ) from error


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's global generators from (seed, step, rank), so that a checkpoint needs no generator state."""
    torch.manual_seed(_seed_from(seed, step, rank))


def _seed_from(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextlib.contextmanager
def save_bad_batch(path: Path, batches: Sequence[Batch]) -> Iterator[None]:
    """Save the micro-batches to ``path`` (.safetensors) if the block raises NonFiniteError, and name it in the error.

    Tensors are named by their path in the list of batches, such as ``0.images.pixels`` or ``0.targets.1.boxes``. The
    metadata hold the image ids and the error message.
    """
    try:
        yield
    except NonFiniteError as error:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _named_tensors(batches, "")}
        image_ids = [list(batch.image_ids) for batch in batches]
        with contextlib.suppress(OSError, SafetensorError):  # failing to write must not hide the NonFiniteError
            save_file(tensors, path, {"image_ids": json.dumps(image_ids), "fault": error.what})
            error.what += f"; the batch is in {path}"
        raise


def _named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield (dotted path, tensor) for every tensor in nested sequences, mappings, field tables and dataclasses."""
    if isinstance(value, Tensor):
        yield name.removeprefix("."), value
    elif isinstance(value, FieldTable):
        yield from _named_tensors(value.fields, name)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _named_tensors(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _named_tensors(part, f"{name}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, part in enumerate(value):
            yield from _named_tensors(part, f"{name}.{index}")
