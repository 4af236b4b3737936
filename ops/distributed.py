"""What the processes of one training run share; a process by itself is a run of one.

A step on several processes is the step that one process would take with all their images: what is drawn at random of
an image, and what a loss is divided by, do not depend on how the images are shared out.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor

_apart = False
_shared: torch.Generator | None = None


def get_world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() and not _apart else 1


def get_rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() and not _apart else 0


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Inside, every process works as if it were the only one: they need not take equally many steps."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


def all_reduce_mean(value: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """The mean of what each process has, without a gradient: every process must call this.

    A loss that is a sum divided by the mean count has, averaged over processes as DDP averages gradients, the value of
    the whole sum divided by the whole count.
    """
    if get_world_size() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / get_world_size()


@contextlib.contextmanager
def shared_generator(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, :func:`draw_image_seeds` has a generator of its own, whose seed all processes share.

    Torch's generator is left to what each process draws for itself, and as often as it likes: dropout must not leave
    out the same units of every process's images.
    """
    global _shared
    before, _shared = _shared, torch.Generator(device).manual_seed(seed)
    try:
        yield
    finally:
        _shared = before


def draw_image_seeds(count: int, device: torch.device) -> Int64[Tensor, " count"]:
    """A random number below 2^32 for each of this process's images, from torch's generator or that of
    :func:`shared_generator`.

    There the images of all processes, rank by rank, get the numbers that one process would have drawn for them.
    """
    first = get_rank() * count
    numbers = torch.randint(2**32, (get_world_size() * count,), device=device, generator=_shared)
    return numbers[first : first + count]


def uniform_from_seed(seed: Int64[Tensor, ""], count: int) -> Float[Tensor, " count"]:
    """``count`` numbers in [0, 1), a function of the seed alone: the first ten do not depend on how many follow.

    Two rounds of the 32-bit hash lowbias32 (Chris Wellons, "Prospecting for hash functions", 2018), one for the place
    and one with the seed.
    """
    places = torch.arange(count, device=seed.device)
    return (_hash((_hash(places) + seed) & _MASK) >> 8).float() / 2**24


_MASK = 2**32 - 1


def _hash(value: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        value = ((value ^ (value >> shift)) * factor) & _MASK
    return value ^ (value >> 16)
