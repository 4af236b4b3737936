"""From several transformed records to one training sample."""

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
    """Probability that a sample is mixed; any other shows its image alone, as it would without a mix."""


class Mix(ABC):
    """An image mixed with partners, other images of the same data set, each of which is transformed first.

    The image is the one that the sampling shows; a partner may be any image of the data set with equal probability,
    whatever the sampling says of rare classes.

    Which partners are drawn, what the transform does to them and how they are mixed is a function of (seed, epoch,
    index) alone. Images are read one after the other, so that only one is in memory in its original size.
    """

    def __init__(self, dataset: Dataset, config: MixConfig, *, partners: int, tasks: Collection[str]) -> None:
        """Refuse a data set with ground truth for a task that is not among ``tasks``, with a UsageError."""
        if unknown := sorted(dataset.classes.keys() - set(tasks)):
            raise UsageError(
                f"{config.name} mixes images with ground truth for {' and '.join(tasks)}; these have it for "
                f"{unknown[0]}",
                "leave train.mix out, or choose another",
            )
        self.count, self.probability, self.partners = len(dataset), config.probability, partners

    def __call__(
        self, read: Callable[[int], Record], transform: Transform, epoch: int, index: int, repeat: int = 0
    ) -> Sample:
        """Return the sample of an index in an epoch; ``repeat`` numbers those that one epoch has of it.

        ``read`` returns the record of an index of the data set.
        """
        seed = transform.seed_sequence(epoch, index, repeat)
        record = transform.move(read(index), seed)
        mix_seed, *partner_seeds = seed.spawn(1 + self.partners)
        generator = np.random.Generator(np.random.PCG64(mix_seed))
        if generator.random() >= self.probability:
            return to_sample(record)
        indices = generator.integers(self.count, size=self.partners).tolist()
        partners = [
            transform.move(read(partner), partner_seed)
            for partner, partner_seed in zip(indices, partner_seeds, strict=True)
        ]
        return to_sample(self.join([record, *partners], generator))

    @abstractmethod
    def join(self, records: Sequence[Record], generator: np.random.Generator) -> Record:
        """Return one record made of all; it keeps the image id of the first."""


MIXES: Registry[Mix] = Registry("mix")
"""Mixes by name; an entry builds from ``(dataset, config)``."""


def build_mix(config: PartConfig, dataset: Dataset) -> Mix:
    """Return the mix that a config describes; UsageError where it cannot handle the ground truth of the data set."""
    return MIXES.build(config, dataset)
