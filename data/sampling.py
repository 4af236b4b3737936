"""The order of the data as a pure function of the config and the seed: there is no state to save."""

import bisect
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field, model_validator

from ..structures import Config, UsageError
from .dataset import Dataset
from .epoch_order import ClassBalancedOrder, EachOnceOrder, EpochOrder, RepeatFactorOrder, repeat_factors


class SamplingConfig(Config):
    """The images that an epoch shows, and which of them share a batch."""

    images: Literal["each_once", "repeat_factor", "class_balanced"] = "each_once"
    """Every image once, or those of rare classes more often: by LVIS's repeat factors (1908.03195), or every class the
    same number of times (class-aware sampling, 1512.05830). Classes are counted by image, crowds and ignored objects
    left out; the other objects of an image come with it. What a mix adds to an image is drawn from all, evenly."""
    repeat_below: float = Field(default=0.001, gt=0, le=1)
    """The share of the images below which ``repeat_factor`` shows a class more often."""
    task: str | None = None
    """The part of a joint data set whose classes are counted: ``detection``, say."""
    group_by_shape: bool = False
    """Put images that are wider than high into batches of their own, so that little of a batch is padding."""

    @model_validator(mode="after")
    def _check_unused(self) -> "SamplingConfig":
        if self.images != "repeat_factor" and self.repeat_below != type(self).model_fields["repeat_below"].default:
            raise ValueError(f"repeat_below is for images='repeat_factor', not {self.images!r}: leave it out")
        if self.images == "each_once" and self.task is not None:
            raise ValueError("task says whose classes are counted, and images='each_once' counts none: leave it out")
        return self


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """An image in an epoch; ``repeat`` numbers those of the same image from 0."""

    epoch: int
    index: int
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """The images of a step that one rank sees.

    The step's batch is cut into ``micro_batches * world_size`` equal runs, of which the rank takes one in each
    micro-batch.
    """

    rank: int = 0
    world_size: int = 1
    micro_batches: int = 1


class StepSampler:
    """A sampler of the batch of every training step, or this rank's shard of it.

    The data is one endless stream, epoch after epoch; step ``s`` (from 0) takes ``batch_size`` positions of it from
    ``s * batch_size`` on. So a resumed run is the tail of the unbroken one, and every epoch is shown completely.
    ``groups`` has a number for every index of the data set: batches are of one group as far as that goes.
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
                f"batch_size {batch_size} cannot be shared out evenly to {shard.world_size} processes in "
                f"{shard.micro_batches} micro-batches: choose a multiple of {shard.world_size * shard.micro_batches}"
            )
        self.epochs, self.batch_size, self.shard, self.groups = epochs, batch_size, shard, groups
        self.steps = range(start_step, end_step)
        self._starts = [0]  # the positions at which epochs begin, as far as they are known

    def __len__(self) -> int:
        return len(self.steps) * self.shard.micro_batches

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        sample_indices = functools.lru_cache(maxsize=2)(self._epoch_samples)
        shard = self.shard
        run = self.batch_size // (shard.world_size * shard.micro_batches)
        for step in self.steps:
            for micro_batch in range(shard.micro_batches):
                first = step * self.batch_size + (micro_batch * shard.world_size + shard.rank) * run
                positions = [self._locate(position) for position in range(first, first + run)]
                yield [SampleIndex(epoch, *sample_indices(epoch)[offset].tolist()) for epoch, offset in positions]

    def _locate(self, position: int) -> tuple[int, int]:
        """Return the epoch of a position of the stream, and the offset in the epoch."""
        while self._starts[-1] <= position:
            self._starts.append(self._starts[-1] + self.epochs.length(len(self._starts) - 1))
        epoch = bisect.bisect_right(self._starts, position) - 1
        return epoch, position - self._starts[epoch]

    def _epoch_samples(self, epoch: int) -> Int64[ndarray, "k 2"]:
        """Return the index and the repeat number of each image that an epoch shows."""
        order = self.epochs.order(epoch)
        if self.groups is not None:
            order = group_batches(order, self.groups[order], self.batch_size, -self._starts[epoch] % self.batch_size)
        return np.stack([order, occurrence_numbers(order)], axis=1)


def group_batches(
    order: Int64[ndarray, " k"], groups: Int64[ndarray, " k"], batch_size: int, head: int
) -> Int64[ndarray, " k"]:
    """Rearrange an epoch's order so that its batches are of one group each.

    The first ``head`` stay where they are, since they complete the last batch of the epoch before. Of the others each
    group fills its own batches, which come in the order in which they are full; what is left of the groups, less than
    a batch of each, stands at the end, one group after the other. So every index comes as often as before, and of an
    epoch's batches no more are mixed than there are groups, the one that it shares with the next epoch included.
    """
    start, rest, groups = order[:head], order[head:], groups[head:]
    by_group = np.argsort(groups, kind="stable")
    filled = np.bincount(groups) // batch_size * batch_size
    full = (occurrence_numbers(groups) < filled[groups])[by_group]
    batches = by_group[full].reshape(-1, batch_size)
    batches = batches[np.argsort(batches[:, -1])]
    return np.concatenate([start, rest[batches.flatten()], rest[by_group[~full]]])


def occurrence_numbers(values: Int64[ndarray, " k"]) -> Int64[ndarray, " k"]:
    """Return how many equal values stand before each value."""
    by_value = np.argsort(values, kind="stable")
    ordered = values[by_value]
    numbers = np.empty(len(values), np.int64)
    numbers[by_value] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return numbers


def build_epoch_order(config: SamplingConfig, dataset: Dataset, seed: int) -> EpochOrder:
    """Return the order of the epochs of a data set; UsageError where it goes by classes that the images do not have."""
    if config.images == "each_once":
        return EachOnceOrder(len(dataset), seed)
    images, labels = (dataset if config.task is None else dataset.part(config.task)).image_labels().T
    if not len(images):
        raise UsageError("no image of the data set has an object to go by", "set sampling.images to each_once")
    count = labels.max() + 1
    pairs = np.divmod(np.unique(images * count + labels), count)  # once each: np.unique of rows takes many times longer
    if config.images == "class_balanced":
        return ClassBalancedOrder(*pairs, len(dataset), seed)
    return RepeatFactorOrder(repeat_factors(*pairs, len(dataset), config.repeat_below), seed)


def group_of_images(config: SamplingConfig, dataset: Dataset) -> Int64[ndarray, " n"] | None:
    """Return 0 for each upright image and 1 for one wider than high; None where batches are not grouped by shape."""
    if not config.group_by_shape:
        return None
    heights, widths = dataset.sizes.T
    return (widths > heights).astype(np.int64)
