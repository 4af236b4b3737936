"""A random number generator with the same numbers on every machine and in every version of numpy."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

T = TypeVar("T")


class PortableGenerator:
    """A random number generator, seeded by one or more integers.

    It uses the raw output of PCG64, which numpy guarantees not to change (NEP 19), unlike the methods of
    ``numpy.random.Generator``.
    """

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def integer(self, low: int, high: int) -> int:
        """Return a uniform random integer from ``low`` to ``high``, both inclusive."""
        return low + (int(self._bits.random_raw()) * (high - low + 1) >> 64)

    def bernoulli(self, percent: int) -> bool:
        """Return True with a probability given in percent."""
        return self.integer(1, 100) <= percent

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options, drawn uniformly."""
        return options[self.integer(0, len(options) - 1)]

    def bytes(self, *shape: int) -> UInt8[np.ndarray, "..."]:
        """Return an array of uniform random bytes."""
        count = int(np.prod(shape))
        words = np.asarray(self._bits.random_raw(-(-count // 8)), dtype="<u8")
        return words.view(np.uint8)[:count].reshape(shape)
