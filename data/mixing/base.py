"""From several transformed records to one sample."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

import numpy as np
from pydantic import Field

from ...structures import PartConfig, Registry, UsageError
from ..dataset import Dataset
from ..transforms import Transform, to_sample
from ..types import Record, Sample


class MixConfig(PartConfig):
    """How a sample is made of several images."""

    probability: float = Field(default=1.0, ge=0, le=1)
    """Of a sample being mixed; any other shows its own image alone, as it would without a mix."""


class Mix(ABC):
    """An image with others of the same data set, each transformed by itself.

    The first is the one that the sampling shows; every other may be any image of the data set, each as likely as
    another, whatever the sampling says of rare classes.

    Which others these are, what the transform does to them and how they are put together is a function of (seed, epoch,
    index) alone. They are read one after the other, so that no more than one is there in its original size.
    """

    def __init__(self, dataset: Dataset, config: MixConfig, *, partners: int, tasks: Collection[str]) -> None:
        """``tasks``: the kinds of truth that it knows how to mix."""
        if unknown := sorted(dataset.classes.keys() - set(tasks)):
            raise UsageError(
                f"{config.name} mixes images with truth for {' and '.join(tasks)}; these have it for {unknown[0]}",
                "leave train.mix out, or choose another",
            )
        self.count, self.probability, self.partners = len(dataset), config.probability, partners

    def __call__(
        self, read: Callable[[int], Record], transform: Transform, epoch: int, index: int, repeat: int = 0
    ) -> Sample:
        """The sample that ``index`` gives in ``epoch``, of several in one epoch the one of this number; ``read`` gets
        the record of an index of the data set."""
        own = transform.randomness(epoch, index, repeat)
        record = transform.move(read(index), own)
        drawn, *others = own.spawn(1 + self.partners)
        generator = np.random.Generator(np.random.PCG64(drawn))
        if generator.random() >= self.probability:
            return to_sample(record)
        places = generator.integers(self.count, size=self.partners).tolist()
        partners = [transform.move(read(place), other) for place, other in zip(places, others, strict=True)]
        return to_sample(self.join([record, *partners], generator))

    @abstractmethod
    def join(self, records: Sequence[Record], generator: np.random.Generator) -> Record:
        """One of all, which is still the first one's: it has that one's image id."""


MIXES: Registry[Mix] = Registry("mix")
"""Mixes by name; an entry builds from ``(dataset, config)``."""


def build_mix(config: PartConfig, dataset: Dataset) -> Mix:
    """The mix that a config describes; UsageError where the truth of the data set cannot be mixed in this way."""
    return MIXES.build(config, dataset)
