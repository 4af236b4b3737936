"""What the processes of one training run have in common; without torch.distributed a process is a run of its own.

A step on several processes is the step that one process would take with all their images: neither what is drawn at
random for an image nor what a loss is divided by depends on which process has which images.
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
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _is_single else 1


def get_rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() and not _is_single else 0


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Make each process work as the only one inside, so that processes need not take equally many steps."""
    global _is_single
    before, _is_single = _is_single, True
    try:
        yield
    finally:
        _is_single = before


def all_reduce_mean(value: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """Return the mean of a value over the processes, without a gradient; every process must call this.

    A loss that is a process's sum divided by the mean count has, averaged over processes as DDP averages gradients, the
    value of the sum over all processes divided by their count.
    """
    if get_world_size() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / get_world_size()


def all_reduce_sum(values: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """Return the sum of values over the processes; every process must call this, and run backward through it.

    The gradient is that of the sum of all processes' losses. So a loss that every process computes from such sums has,
    with gradients averaged over processes, the gradient of one process with all images.
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
    """Make :func:`draw_image_seeds` draw from a generator whose seed all processes have in common.

    Torch's own generator stays free for what each process draws for itself, as often as it likes: dropout must not
    leave out the same units for the images of every process.
    """
    global _shared_generator
    before, _shared_generator = _shared_generator, torch.Generator(device).manual_seed(seed)
    try:
        yield
    finally:
        _shared_generator = before


def draw_image_seeds(count: int, device: torch.device) -> Int64[Tensor, " count"]:
    """Draw a random number below 2^32 for each of this process's images.

    It comes from torch's generator or, inside :func:`shared_generator`, from that one. Then the images of all
    processes, in the order of the ranks, get the numbers that one process would have drawn for them.
    """
    first = get_rank() * count
    seeds = torch.randint(2**32, (get_world_size() * count,), device=device, generator=_shared_generator)
    return seeds[first : first + count]


def uniform_from_seed(seed: Int64[Tensor, ""], count: int) -> Float[Tensor, " count"]:
    """Return ``count`` numbers in [0, 1), a function of the seed alone: the first ten do not depend on how many follow.

    Two rounds of the 32-bit hash lowbias32 (Chris Wellons, "Prospecting for hash functions", 2018), one of the position
    and one with the seed.
    """
    positions = torch.arange(count, device=seed.device)
    return (_hash((_hash(positions) + seed) & _MASK) >> 8).float() / 2**24


_MASK = 2**32 - 1


def _hash(value: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        value = ((value ^ (value >> shift)) * factor) & _MASK
    return value ^ (value >> 16)
