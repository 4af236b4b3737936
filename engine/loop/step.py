"""One step of a training: everything that changes in it, the change, and the batch that it fails on."""

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
from ...inference.numerics import autocast
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
    """The state that a step changes.

    ``parallel`` is the model, or the module that averages its gradients over the ranks.
    """

    model: Model
    optimizer: optim.Optimizer
    scaler: torch.amp.GradScaler
    average: ModelEMA | None
    parallel: nn.Module
    distributed: DistributedContext

    @classmethod
    def create(
        cls, model: Model, config: ExperimentConfig, distributed: DistributedContext | None = None
    ) -> "TrainingState":
        """Return the state before the first step; the model is compiled and sharded as the config says."""
        distributed = distributed or DistributedContext(model.device)
        recipe = config.recipe
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
        """The model that is evaluated: that of the averaged weights, if there are any."""
        return self.model if self.average is None else self.average.model


def train_step(state: TrainingState, batches: Sequence[Batch], config: ExperimentConfig, step: int) -> dict[str, float]:
    """Take step ``step``, counted from 1, with this rank's micro-batches, and return its numbers.

    These are the losses, the gradient norm and the learning rate, as means over micro-batches and ranks; in steps that
    are logged also the means of the numbers to watch that the head returns. Raises :class:`NonFiniteError` before the
    weights are touched, naming the images. Under ``fp16`` gradients that overflow skip the update: ``skipped`` is 1,
    otherwise 0.
    """
    seed_step(config.recipe.seed, step, state.distributed.rank)
    lr = scaled_learning_rate(config.recipe.optimizer, config.recipe.batch_size)
    lr *= config.recipe.schedule.factor(step - 1)
    set_learning_rate(state.optimizer, lr)
    with _memory_errors(step, batches):
        with shared_generator(_seed_from(config.recipe.seed, step), state.model.device):
            losses, metrics = _accumulate(state, batches, config)
        state.scaler.unscale_(state.optimizer)
        norm = full_tensor(nn.utils.clip_grad_norm_(state.model.parameters(), config.recipe.clip_norm or math.inf))
        total = torch.stack(list(losses.values())).sum()
        metrics = metrics if config.is_logged(step) else {}
        numbers, watched = _read_means(state.distributed, losses | {"loss": total, "grad_norm": norm}, metrics)
        if state.scaler.is_enabled():
            overflow = not math.isfinite(numbers["grad_norm"]) and state.scaler.get_scale() >= 1
            numbers["skipped"] = float(overflow)
            if overflow:
                numbers["grad_norm"] = 0.0  # what overflowed is no gradient; the scaler takes no step with it
        if not all(math.isfinite(value) for value in numbers.values()):
            raise _non_finite_error(state.distributed, step, numbers, batches)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update(state.model, step)
    return numbers | watched | {"lr": lr}


def _read_means(
    distributed: DistributedContext, scalars: Mapping[str, Tensor], metrics: Mapping[str, Sequence[Tensor]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the means over all ranks of scalars, and of the values of each metric where it has any.

    All numbers of a step take one exchange between ranks and one read from the device together.
    """
    columns = [torch.cat([part.detach().flatten().float() for part in parts]) for parts in metrics.values()]
    sums = [column.sum() for column in columns]
    counts = [column.new_full((), len(column)) for column in columns]
    means = distributed.all_reduce_mean(torch.stack([*scalars.values(), *sums, *counts])).tolist()
    first, second = len(scalars), len(scalars) + len(metrics)
    totals = zip(metrics, means[first:second], means[second:], strict=True)
    return dict(zip(scalars, means[:first], strict=True)), {
        name: total / count for name, total, count in totals if count
    }


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
        with _gradient_exchange(state.parallel, enabled=number == len(batches)):
            with autocast(config.recipe.precision, batch.images.pixels.device):
                outputs: dict[str, Tensor] = state.parallel(batch.images, batch.targets)
            state.scaler.scale(total_loss(outputs) / len(batches)).backward()
        losses, values = split_losses(outputs)
        for name, loss in losses.items():
            means[name] = means.get(name, 0) + loss.detach() / len(batches)
        for name, value in values.items():
            metrics.setdefault(name, []).append(value)
    return means, metrics


def _gradient_exchange(parallel: nn.Module, enabled: bool) -> contextlib.AbstractContextManager[Any]:
    """Return the context of a backward pass that exchanges gradients between ranks, or does not."""
    if isinstance(parallel, FSDPModule):
        parallel.set_requires_gradient_sync(enabled)
        return contextlib.nullcontext()
    no_sync = getattr(parallel, "no_sync", contextlib.nullcontext)
    return contextlib.nullcontext() if enabled else no_sync()


def _non_finite_error(
    distributed: DistributedContext, step: int, numbers: dict[str, float], batches: Sequence[Batch]
) -> NonFiniteError:
    """Return the error that names the numbers and images of all ranks, which call this together."""
    terms = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    ids = [image_id for batch in batches for image_id in batch.image_ids]
    shown = ", ".join(str(image_id) for ids_of_rank in distributed.all_gather(ids) for image_id in ids_of_rank)
    fix = "lower optimizer.lr in a new run (start_from takes the weights over), or look at these images"
    error = NonFiniteError(f"step {step}: {terms}; images {shown}", fix)
    error.reported_by_other_rank = not distributed.is_rank_zero
    return error


@contextlib.contextmanager
def _memory_errors(step: int, batches: Sequence[Batch]) -> Iterator[None]:
    """Turn the error of a step that does not fit into memory into one that tells the sizes of its images."""
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
    """Seed torch's generators for a rank's step, so that resuming needs no generator's state."""
    torch.manual_seed(_seed_from(seed, step, rank))


def _seed_from(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextlib.contextmanager
def save_bad_batch(path: Path, batches: Sequence[Batch]) -> Iterator[None]:
    """Write a step's micro-batches to ``path`` (.safetensors) if its numbers are not finite, and say so in the error.

    Tensors are named by where they are: ``0.images.pixels``, ``0.targets.1.boxes``. The metadata has the image ids.
    """
    try:
        yield
    except NonFiniteError as error:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _named_tensors(batches, "")}
        image_ids = [list(batch.image_ids) for batch in batches]
        with contextlib.suppress(OSError, SafetensorError):  # the numbers matter more than the file
            save_file(tensors, path, {"image_ids": json.dumps(image_ids), "fault": error.what})
            error.what += f"; the batch is in {path}"
        raise


def _named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in sequences, mappings, field tables and dataclasses, with the path to it."""
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
