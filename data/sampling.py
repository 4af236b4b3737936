"""Sampling of training images, as a pure function of the config and the seed, so that there is no state to save."""

import bisect
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field, model_validator

from ..structures import Config, UsageError
from .dataset import Dataset
from .epoch_order import ClassBalancedOrder, EachOnceOrder, EpochOrder, RepeatFactorOrder, repeat_factors


class SamplingConfig(Config):
    """The images that an epoch contains, and how they are grouped into batches."""

    images: Literal["each_once", "repeat_factor", "class_balanced"] = "each_once"
    """``each_once``: every image once. ``repeat_factor``: images of rare classes more often (LVIS, 1908.03195).
    ``class_balanced``: every class the same number of times (class-aware sampling, 1512.05830). The frequency of a
    class is the number of images with it, without crowds and ignored objects. The partners of a mix are drawn uniformly
    from all images."""
    repeat_below: float = Field(default=0.001, gt=0, le=1)
    """``repeat_factor`` repeats classes that are on a smaller fraction of the images than this."""
    task: str | None = None
    """The part of a joint data set whose classes are counted, such as ``detection``."""
    group_by_shape: bool = False
    """Put images that are wider than high into separate batches where possible, which reduces padding."""

    @model_validator(mode="after")
    def _check_unused(self) -> "SamplingConfig":
        if self.images != "repeat_factor" and self.repeat_below != type(self).model_fields["repeat_below"].default:
            raise ValueError(f"repeat_below is for images='repeat_factor', not {self.images!r}: leave it out")
        if self.images == "each_once" and self.task is not None:
            raise ValueError("task is for counting classes, and images='each_once' counts none: leave it out")
        return self


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """The key of a sample: the epoch, the data set index, and the number of its earlier repetitions in the epoch."""

    epoch: int
    index: int
    repeat: int = 0
    progress: float = field(default=0.0, compare=False)
    """The fraction of the training steps completed before the sample's step; not compared for equality."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of each step's batch that one rank gets.

    The batch is divided into ``micro_batches``, and each micro-batch into ``world_size`` equal consecutive parts, of
    which each rank gets one.
    """

    rank: int = 0
    world_size: int = 1
    micro_batches: int = 1


class StepSampler:
    """Batch sampler that yields this rank's shard of the batch of every training step.

    The epochs form one endless stream of samples, and step ``s`` (from 0) takes ``batch_size`` samples from position
    ``s * batch_size``. So a resumed run continues exactly where an uninterrupted one would, and batches may span two
    epochs. ``groups`` has a group number for every data set index; images of different groups are not mixed in a batch
    where possible, see :func:`group_batches`.
    """

    def __init__(
        self,
        epochs: EpochOrder,
        *,
        batch_size: int,
        start_step: int,
        end_step: int,
        shard: Shard = Shard(),
        groups: Int64[ndarray, " n"] | None = None,
    ) -> None:
        if batch_size % (shard.world_size * shard.micro_batches):
            raise ValueError(
                f"batch_size {batch_size} cannot be divided evenly among {shard.world_size} processes and "
                f"{shard.micro_batches} micro-batches: choose a multiple of {shard.world_size * shard.micro_batches}"
            )
        self.epochs, self.batch_size, self.shard, self.groups = epochs, batch_size, shard, groups
        self.steps = range(start_step, end_step)
        self._starts = [0]  # the stream position of the start of each epoch, extended on demand

    def __len__(self) -> int:
        return len(self.steps) * self.shard.micro_batches

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        sample_indices = functools.lru_cache(maxsize=2)(self._epoch_samples)
        shard = self.shard
        length = self.batch_size // (shard.world_size * shard.micro_batches)
        for step in self.steps:
            for micro_batch in range(shard.micro_batches):
                first = step * self.batch_size + (micro_batch * shard.world_size + shard.rank) * length
                positions = [self._locate(position) for position in range(first, first + length)]
                yield [
                    SampleIndex(epoch, *sample_indices(epoch)[offset].tolist(), progress=step / self.steps.stop)
                    for epoch, offset in positions
                ]

    def _locate(self, position: int) -> tuple[int, int]:
        """Return the epoch of a stream position, and the offset within the epoch."""
        while self._starts[-1] <= position:
            self._starts.append(self._starts[-1] + self.epochs.length(len(self._starts) - 1))
        epoch = bisect.bisect_right(self._starts, position) - 1
        return epoch, position - self._starts[epoch]

    def _epoch_samples(self, epoch: int) -> Int64[ndarray, "k 2"]:
        """Return the (data set index, repeat number) of each sample of an epoch."""
        order = self.epochs.order(epoch)
        if self.groups is not None:
            order = group_batches(order, self.groups[order], self.batch_size, -self._starts[epoch] % self.batch_size)
        return np.stack([order, count_earlier_occurrences(order)], axis=1)


def group_batches(
    order: Int64[ndarray, " k"], groups: Int64[ndarray, " k"], batch_size: int, head: int
) -> Int64[ndarray, " k"]:
    """Rearrange the order of an epoch so that most of its batches contain a single group.

    The first ``head`` samples stay in place, since they complete the last batch of the previous epoch. The other
    samples are collected into batches of one group, in the order in which these become full. The samples left over,
    less than a batch per group, come last, sorted by group. So at most as many batches are mixed as there are groups,
    including the batch shared with the next epoch.
    """
    start, rest, groups = order[:head], order[head:], groups[head:]
    by_group = np.argsort(groups, kind="stable")
    count_in_full_batches = np.bincount(groups) // batch_size * batch_size
    in_full_batch = (count_earlier_occurrences(groups) < count_in_full_batches[groups])[by_group]
    batches = by_group[in_full_batch].reshape(-1, batch_size)
    batches = batches[np.argsort(batches[:, -1])]
    return np.concatenate([start, rest[batches.flatten()], rest[by_group[~in_full_batch]]])


def count_earlier_occurrences(values: Int64[ndarray, " k"]) -> Int64[ndarray, " k"]:
    """Return, for each value, the number of equal values before it."""
    by_value = np.argsort(values, kind="stable")
    ordered = values[by_value]
    numbers = np.empty(len(values), np.int64)
    numbers[by_value] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return numbers


def build_epoch_order(config: SamplingConfig, dataset: Dataset, seed: int) -> EpochOrder:
    """Build the epoch order of a config; raise UsageError if it counts classes and the images have none."""
    if config.images == "each_once":
        return EachOnceOrder(len(dataset), seed)
    images, labels = (dataset if config.task is None else dataset.part(config.task)).image_labels().T
    if not len(images):
        raise UsageError("no image of the data set has an object to sample by", "set sampling.images to each_once")
    count = labels.max() + 1
    # Remove repeated pairs by encoding each as one integer: np.unique over rows takes many times longer.
    pairs = np.divmod(np.unique(images * count + labels), count)
    if config.images == "class_balanced":
        return ClassBalancedOrder(*pairs, len(dataset), seed)
    return RepeatFactorOrder(repeat_factors(*pairs, len(dataset), config.repeat_below), seed)


def group_of_images(config: SamplingConfig, dataset: Dataset) -> Int64[ndarray, " n"] | None:
    """Return the group of each image, 1 if it is wider than high and otherwise 0; None if batches are not grouped."""
    if not config.group_by_shape:
        return None
    heights, widths = dataset.sizes.T
    return (widths > heights).astype(np.int64)
