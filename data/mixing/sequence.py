"""A mix that applies other mixes in sequence, such as mosaic and then mixup (2107.08430 section 2.1)."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ...structures import PartConfig
from ..dataset import Dataset
from ..types import Record
from .base import MIXES, Mix, MixConfig, build_mix


class MixSequenceConfig(MixConfig):
    """The options of a sequence of mixes, each of which mixes the result of the previous one with further images."""

    name: Literal["sequence"] = "sequence"
    mixes: tuple[Annotated[PartConfig, *MIXES.field()], ...] = Field(min_length=2)
    """The mixes, in the order in which they are applied, each with its own ``probability``."""

    @model_validator(mode="after")
    def _check_schedule(self) -> "MixSequenceConfig":
        for mix in self.mixes:
            if isinstance(mix, MixConfig) and mix.until != 1:
                raise ValueError(f"until={mix.until} of {mix.name} has no effect in a sequence: set it on the sequence")
        return self


@MIXES.register("sequence", MixSequenceConfig)
class MixSequence(Mix):
    """A sequence of mixes: the first is applied to the image of the sample, each other to the previous result."""

    def __init__(self, dataset: Dataset, config: MixSequenceConfig) -> None:
        self.mixes = [build_mix(mix, dataset) for mix in config.mixes]
        super().__init__(dataset, config, partners=sum(mix.partners for mix in self.mixes), tasks=dataset.classes)

    def join(self, records: Sequence[Record], generator: np.random.Generator) -> Record:
        result, start = records[0], 1
        for mix in self.mixes:
            end = start + mix.partners
            if generator.random() < mix.probability:
                result = mix.join([result, *records[start:end]], generator)
            start = end
        return result
