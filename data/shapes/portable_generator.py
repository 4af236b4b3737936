"""Random whole numbers that are the same on every machine and with every version of numpy."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

T = TypeVar("T")


class PortableGenerator:
    """A stream of whole numbers, set by ``key`` alone.

    It reads the raw words of PCG64: numpy promises those for ever (NEP 19), and the methods of its ``Generator`` not.
    """

    def __init__(self, *key: int) -> None:
        self._words = np.random.PCG64(np.random.SeedSequence(key))

    def roll(self, low: int, high: int) -> int:
        """Uniform in ``low..high``, both included."""
        return low + (int(self._words.random_raw()) * (high - low + 1) >> 64)

    def chance(self, percent: int) -> bool:
        """True in so many of 100 cases."""
        return self.roll(1, 100) <= percent

    def choose(self, options: Sequence[T]) -> T:
        """One of the options, each as likely as another."""
        return options[self.roll(0, len(options) - 1)]

    def grains(self, *shape: int) -> UInt8[np.ndarray, "..."]:
        """An array of uniform bytes."""
        count = int(np.prod(shape))
        words = np.asarray(self._words.random_raw(-(-count // 8)), dtype="<u8")
        return words.view(np.uint8)[:count].reshape(shape)
