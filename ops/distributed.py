"""Reductions and random numbers across the processes of a training run; without torch.distributed there is one process.

A step on several processes equals the step of one process with all their images: neither the random numbers of an image
nor the normalizer of a loss depends on how the images are distributed over the processes.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor

_is_single = False
_shared_generator: torch.Generator | None = None


def get_world_size() -> int:
    """Return the number of processes of the run; 1 without torch.distributed and inside :func:`single_process`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _is_single else 1


def get_rank() -> int:
    """Return the rank of this process; 0 without torch.distributed and inside :func:`single_process`."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() and not _is_single else 0


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Make each process act as a run of one process inside the block, so that processes may take different steps."""
    global _is_single
    before, _is_single = _is_single, True
    try:
        yield
    finally:
        _is_single = before


def all_reduce_mean(value: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """Return the mean of a value over all processes, without gradient; every process must call this.

    Use it for the normalizer of a loss: if each process divides its sum by the mean count, then the average over the
    processes, as DDP averages gradients, equals the total sum divided by the total count.
    """
    if get_world_size() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / get_world_size()


def all_reduce_sum(values: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """Return the sum of values over all processes; every process must call this, and its backward pass.

    The gradient is that of the sum of the losses of all processes. If every process computes the same loss from these
    sums, the gradient averaged over processes is that of one process with all images.
    """
    if get_world_size() == 1:
        return values
    return _AllReduceSum.apply(values)  # pyright: ignore[reportReturnType]


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return all_reduce_sum(gradients[0])


@contextlib.contextmanager
def shared_generator(seed: int, device: torch.device) -> Iterator[None]:
    """Make :func:`draw_image_seeds` use a generator that has the same ``seed`` on all processes.

    torch's default generator stays independent per process: dropout, for example, must not drop the same units for the
    images of every process.
    """
    global _shared_generator
    before, _shared_generator = _shared_generator, torch.Generator(device).manual_seed(seed)
    try:
        yield
    finally:
        _shared_generator = before


def draw_image_seeds(count: int, device: torch.device) -> Int64[Tensor, " count"]:
    """Draw a random seed below 2^32 for each of the ``count`` images of this process.

    Inside :func:`shared_generator`, the images of all processes, in rank order, get the seeds that a single process
    with all images would draw. Outside it, the seeds come from torch's default generator.
    """
    first = get_rank() * count
    seeds = torch.randint(2**32, (get_world_size() * count,), device=device, generator=_shared_generator)
    return seeds[first : first + count]


def uniform_from_seeds(seeds: Int64[Tensor, "*b"], count: int) -> Float[Tensor, "*b count"]:
    """Return ``count`` uniform random numbers in [0, 1) for each seed, which depend only on it and on their position.

    A larger ``count`` only appends numbers. The 32-bit hash lowbias32 (Chris Wellons, "Prospecting for hash functions",
    2018) is applied to the position, and again after adding the seed.
    """
    positions = torch.arange(count, device=seeds.device)
    return (_hash((_hash(positions) + seeds[..., None]) & _MASK) >> 8).float() / 2**24


_MASK = 2**32 - 1


def _hash(value: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        value = ((value ^ (value >> shift)) * factor) & _MASK
    return value ^ (value >> 16)
