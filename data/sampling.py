"""The order of the data, as a pure function: no state to save, and workers change nothing."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy import ndarray


@dataclass(frozen=True, slots=True)
class Share:
    """Which images of a step one process sees: the step's batch is cut into ``micro_batches * processes`` equal runs,
    of which the process of this ``rank`` takes one in each micro-batch."""

    rank: int = 0
    processes: int = 1
    micro_batches: int = 1


class StepSampler:
    """For every training step its batch, or this process's share of it, as ``(epoch, index)`` pairs.

    The data is one endless stream: position ``p`` is in epoch ``p // length`` and holds the index that the epoch's own
    permutation has at ``p % length``; step ``s`` (from 0) takes ``batch_size`` positions from ``s * batch_size`` on.
    So a resumed run is the tail of the unbroken one, and every index comes once in an epoch.
    """

    def __init__(
        self, length: int, *, batch_size: int, seed: int, start_step: int, end_step: int, share: Share = Share()
    ) -> None:
        if batch_size % (share.processes * share.micro_batches):
            raise ValueError(
                f"batch_size {batch_size} cannot be shared out evenly to {share.processes} processes in "
                f"{share.micro_batches} micro-batches: choose a multiple of {share.processes * share.micro_batches}"
            )
        self.length, self.batch_size, self.seed, self.share = length, batch_size, seed, share
        self.steps = range(start_step, end_step)

    def __len__(self) -> int:
        return len(self.steps) * self.share.micro_batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = functools.lru_cache(maxsize=2)(self._order)
        share = self.share
        run = self.batch_size // (share.processes * share.micro_batches)
        for step in self.steps:
            for micro_batch in range(share.micro_batches):
                first = step * self.batch_size + (micro_batch * share.processes + share.rank) * run
                places = [divmod(position, self.length) for position in range(first, first + run)]
                yield [(epoch, int(order(epoch)[place])) for epoch, place in places]

    def _order(self, epoch: int) -> ndarray:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, epoch)))).permutation(self.length)
