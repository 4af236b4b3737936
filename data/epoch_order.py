"""The images of an epoch and their order: pure functions of the epoch's number, so there is no state to save."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray


class EpochOrder(ABC):
    """The indices of a data set that each epoch shows, in its order."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @abstractmethod
    def length(self, epoch: int) -> int:
        """Return how many indices epoch ``epoch``, counted from 0, shows."""

    @abstractmethod
    def order(self, epoch: int) -> Int64[ndarray, " k"]:
        """Return the indices that epoch ``epoch`` shows, in order."""

    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, epoch))))


class EachOnceOrder(EpochOrder):
    """An order in which every index comes once."""

    def __init__(self, length: int, seed: int) -> None:
        super().__init__(seed)
        self._length = length

    def length(self, epoch: int) -> int:
        return self._length

    def order(self, epoch: int) -> Int64[ndarray, " k"]:
        return self._generator(epoch).permutation(self._length)


class RepeatFactorOrder(EpochOrder):
    """An order in which every index comes as often as its factor says.

    The fraction of a factor is the chance that the index comes one time more.
    """

    def __init__(self, factors: Float64[ndarray, " n"], seed: int) -> None:
        super().__init__(seed)
        self._factors = factors

    def length(self, epoch: int) -> int:
        return int(self._times(self._generator(epoch)).sum())

    def order(self, epoch: int) -> Int64[ndarray, " k"]:
        generator = self._generator(epoch)
        return generator.permutation(np.repeat(np.arange(len(self._factors)), self._times(generator)))

    def _times(self, generator: np.random.Generator) -> Int64[ndarray, " n"]:
        at_least = np.floor(self._factors)
        return (at_least + (generator.random(len(at_least)) < self._factors - at_least)).astype(np.int64)


class ClassBalancedOrder(EpochOrder):
    """An order of as many draws as there are images, the same number for every class (to within one).

    Each draw for a class is of an image that has it. A class goes through its images in a random order and then through
    them anew: class-aware sampling (1512.05830). So an image without classes is never drawn, and one with several
    classes may be drawn for each.
    """

    def __init__(self, images: Int64[ndarray, " p"], labels: Int64[ndarray, " p"], length: int, seed: int) -> None:
        """Take pairs ``(images[i], labels[i])``, one for each class of each image; ``length`` is that of an epoch."""
        super().__init__(seed)
        self._length = length
        by_class = np.argsort(labels, kind="stable")
        starts = np.unique(labels[by_class], return_index=True)[1]
        self._images_of_class = np.split(images[by_class], starts[1:])

    def length(self, epoch: int) -> int:
        return self._length

    def order(self, epoch: int) -> Int64[ndarray, " k"]:
        generator, classes = self._generator(epoch), len(self._images_of_class)
        draws = np.full(classes, self._length // classes)
        draws[generator.permutation(classes)[: self._length % classes]] += 1
        counted = zip(self._images_of_class, draws.tolist(), strict=True)
        return generator.permutation(
            np.concatenate([_cycle_images(images, count, generator) for images, count in counted])
        )


def _cycle_images(images: Int64[ndarray, " n"], count: int, generator: np.random.Generator) -> Int64[ndarray, " k"]:
    """Return ``count`` images, each as often as the others (to within one)."""
    rounds = [generator.permutation(images) for _ in range(-(-count // len(images)))]
    return np.concatenate([images[:0], *rounds])[:count]


def repeat_factors(
    images: Int64[ndarray, " p"], labels: Int64[ndarray, " p"], length: int, threshold: float
) -> Float64[ndarray, " n"]:
    """Return how often an epoch shows each of ``length`` images.

    ``images`` and ``labels`` are pairs, one for each class of each image. A class that is on a fraction f of the images
    asks for max(1, sqrt(threshold / f)), an image gets what its most demanding class asks for (1908.03195, appendix
    B.2). One without classes gets 1.
    """
    shares = np.bincount(labels) / length
    factors = np.ones(length)
    with np.errstate(divide="ignore"):
        asked = np.maximum(1, np.sqrt(threshold / shares))
    np.maximum.at(factors, images, asked[labels])
    return factors
