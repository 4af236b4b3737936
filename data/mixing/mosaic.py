"""Mosaic (2004.10934): four images around a point."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from ..dataset import Dataset
from ..types import Record
from .base import MIXES, Mix, MixConfig
from .pieces import Piece, Window, compose_canvas, cut

InnerFraction = Annotated[float, Field(gt=0, lt=1)]


class MosaicConfig(MixConfig):
    """The transform decides at which scale each image is seen, and the mosaic how much of it: with
    ``ResizeConfig(short_sides=(320, ..., 640))`` a quarter of 640 x 640 shows all of some and a part of others."""

    name: Literal["mosaic"] = "mosaic"
    size: tuple[PositiveInt, PositiveInt] = (640, 640)
    """Height and width of the whole, in pixels."""
    middle: tuple[InnerFraction, InnerFraction] = (0.25, 0.75)
    """Between which shares of either side the point lies at which the four meet; every one is equally likely."""

    @model_validator(mode="after")
    def _check_middle(self) -> "MosaicConfig":
        if self.middle[0] > self.middle[1]:
            raise ValueError(f"middle goes from the least to the greatest; got {self.middle}")
        return self


@MIXES.register("mosaic", MosaicConfig)
class Mosaic(Mix):
    """Each image in a quarter of its own, the first at the top left.

    A quarter shows a random part of an image that is larger, and an image that is smaller stands against the middle;
    around it is the mean colour, with no objects and no known class. The box of an object with a mask or an outline is
    that of what is seen of it, any other is cut; what shows nothing is dropped, of what is to be ignored too.
    """

    def __init__(self, dataset: Dataset, config: MosaicConfig) -> None:
        super().__init__(dataset, config, partners=3, tasks=("detection", "semantic"))
        self.size, self.middle = config.size, config.middle

    def join(self, records: Sequence[Record], generator: np.random.Generator) -> Record:
        """All four."""
        rows, columns = (_halves(side, generator.uniform(*self.middle)) for side in self.size)
        quarters = [(row, column) for row in rows for column in columns]
        return compose_canvas(
            [_fill(quarter, record, generator) for quarter, record in zip(quarters, records, strict=True)], self.size
        )


Span = tuple[int, int]


def _halves(side: int, share: float) -> tuple[Span, Span]:
    """StartingPoint and end of both parts of a side."""
    middle = round(side * share)
    return (0, middle), (middle, side)


def _fill(quarter: tuple[Span, Span], record: Record, generator: np.random.Generator) -> Piece:
    """The part of an image that is seen in a quarter, and where."""
    (top, height, down), (left, width, right) = (
        _fit(span, length, generator) for span, length in zip(quarter, record.image.shape[:2], strict=True)
    )
    return Piece(cut(record, Window(left, top, width, height)), right, down)


def _fit(span: Span, length: int, generator: np.random.Generator) -> tuple[int, int, int]:
    """Along one side: where what is seen begins in the image, how long it is, and where it begins on the canvas."""
    first, last = span
    shown = min(last - first, length)
    start = int(generator.integers(length - shown + 1))
    return start, shown, (last - shown if first == 0 else first)
