"""The order of the data, as a pure function: no state to save, and workers change nothing."""

import functools
from collections.abc import Iterator

import numpy as np
from numpy import ndarray


class StepSampler:
    """For every training step its batch, as ``(epoch, index)`` pairs.

    The data is one endless stream: position ``p`` is in epoch ``p // length`` and holds the index that the epoch's own
    permutation has at ``p % length``; step ``s`` (from 0) takes ``batch_size`` positions from ``s * batch_size`` on.
    So a resumed run is the tail of the unbroken one, and every index comes once in an epoch.
    """

    def __init__(self, length: int, *, batch_size: int, seed: int, start_step: int, end_step: int) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.steps = range(start_step, end_step)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = functools.lru_cache(maxsize=2)(self._order)
        for step in self.steps:
            first = step * self.batch_size
            places = [divmod(position, self.length) for position in range(first, first + self.batch_size)]
            yield [(epoch, int(order(epoch)[place])) for epoch, place in places]

    def _order(self, epoch: int) -> ndarray:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, epoch)))).permutation(self.length)
