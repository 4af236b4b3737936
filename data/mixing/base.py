"""The base class of mixes, which make one training sample of several transformed images, and their registry."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

import numpy as np
from pydantic import Field

from ...structures import PartConfig, Registry, UsageError
from ..dataset import Dataset
from ..transforms import Transform, to_sample
from ..types import Record, Sample


class MixConfig(PartConfig):
    """Base class of the configs of mixes."""

    probability: float = Field(default=1.0, ge=0, le=1)
    """Probability that a sample is mixed; the other samples show their image alone, as without a mix."""
    until: float = Field(default=1.0, gt=0, le=1)
    """The fraction of the training steps after which mixing stops, so that the model is last trained on unmixed images.
    YOLOX stops 15 epochs before the end of 300, ``until=0.95`` (2107.08430)."""


class Mix(ABC):
    """Base class of mixes: combine the image of a sample with partners, other images of the data set.

    All images are transformed first. The first image is chosen by the sampler; the partners are drawn uniformly from
    all images, whatever the sampling config says about rare classes.

    The partners, their transforms and the mixing depend only on (seed, epoch, index, repeat). Images are read one at a
    time, so that only one is in memory at its original size.
    """

    def __init__(self, dataset: Dataset, config: MixConfig, *, partners: int, tasks: Collection[str]) -> None:
        """Set the number of partners; raise UsageError if the data set has a task that is not among ``tasks``."""
        if unsupported := sorted(dataset.classes.keys() - set(tasks)):
            raise UsageError(
                f"{config.name} mixes images with ground truth for {' and '.join(tasks)}; the data set has it for "
                f"{unsupported[0]}",
                "leave train.mix out, or choose another",
            )
        self.count, self.partners = len(dataset), partners
        self.probability, self.until = config.probability, config.until

    def __call__(
        self, read: Callable[[int], Record], transform: Transform, epoch: int, index: int, repeat: int = 0
    ) -> Sample:
        """Return the mixed sample of a data set index in an epoch.

        ``repeat`` counts the earlier samples of this index in the epoch. ``read`` returns the record of an index.
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
        """Combine the records to one, which has the image id of the first."""


MIXES: Registry[Mix] = Registry("mix")
"""Mixes by name; builders take ``(dataset, config)``."""


def build_mix(config: PartConfig, dataset: Dataset) -> Mix:
    """Build the mix of a config; raise UsageError if it does not support the ground truth of the data set."""
    return MIXES.build(config, dataset)
