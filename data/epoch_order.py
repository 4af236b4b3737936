"""The images of each epoch and their order, as pure functions of the epoch index, so that there is no state to save."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray


class EpochOrder(ABC):
    """Base class of the orders in which epochs go through the indices of a data set."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @abstractmethod
    def length(self, epoch: int) -> int:
        """Return the number of samples of an epoch, counted from 0."""

    @abstractmethod
    def order(self, epoch: int) -> Int64[ndarray, " k"]:
        """Return the data set index of each sample of an epoch, in order."""

    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, epoch))))


class EachOnceOrder(EpochOrder):
    """A random permutation of all indices in every epoch."""

    def __init__(self, length: int, seed: int) -> None:
        super().__init__(seed)
        self._length = length

    def length(self, epoch: int) -> int:
        return self._length

    def order(self, epoch: int) -> Int64[ndarray, " k"]:
        return self._generator(epoch).permutation(self._length)


class RepeatFactorOrder(EpochOrder):
    """A random order in which every index is repeated by its repeat factor (1908.03195).

    The fractional part of a factor is the probability of one more repetition, drawn in each epoch.
    """

    def __init__(self, factors: Float64[ndarray, " n"], seed: int) -> None:
        super().__init__(seed)
        self._factors = factors

    def length(self, epoch: int) -> int:
        return int(self._repeats(self._generator(epoch)).sum())

    def order(self, epoch: int) -> Int64[ndarray, " k"]:
        generator = self._generator(epoch)
        return generator.permutation(np.repeat(np.arange(len(self._factors)), self._repeats(generator)))

    def _repeats(self, generator: np.random.Generator) -> Int64[ndarray, " n"]:
        whole_part = np.floor(self._factors)
        return (whole_part + (generator.random(len(whole_part)) < self._factors - whole_part)).astype(np.int64)


class ClassBalancedOrder(EpochOrder):
    """Class-aware sampling (1512.05830): every class gets the same number of samples in an epoch, give or take one.

    The samples of a class are images that have it, in a random order, repeated in a new random order when all were
    shown. So an image without classes is never shown, and one with several classes may be shown for each of them.
    """

    def __init__(self, images: Int64[ndarray, " p"], labels: Int64[ndarray, " p"], length: int, seed: int) -> None:
        """Group the images by class.

        ``(images[i], labels[i])`` are pairs of an image index and a label, one for each class of each image. ``length``
        is the number of samples of an epoch.
        """
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
    """Return ``count`` images in random order, each the same number of times, give or take one."""
    rounds = [generator.permutation(images) for _ in range(-(-count // len(images)))]
    return np.concatenate([images[:0], *rounds])[:count]


def repeat_factors(
    images: Int64[ndarray, " p"], labels: Int64[ndarray, " p"], length: int, threshold: float
) -> Float64[ndarray, " n"]:
    """Return the repeat factor of each of ``length`` images (1908.03195, appendix B.2).

    ``(images[i], labels[i])`` are pairs of an image index and a label, one for each class of each image. The factor of
    a class is max(1, sqrt(threshold / f)), where f is the fraction of the images that have it. The factor of an image
    is the largest of its classes, and 1 without classes.
    """
    frequencies = np.bincount(labels) / length
    factors = np.ones(length)
    with np.errstate(divide="ignore"):
        class_factors = np.maximum(1, np.sqrt(threshold / frequencies))
    np.maximum.at(factors, images, class_factors[labels])
    return factors
