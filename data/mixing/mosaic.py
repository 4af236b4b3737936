"""Mosaic (2004.10934): four images around a point."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from ..dataset import Dataset
from ..object_fields import Window
from ..types import Record
from .base import MIXES, Mix, MixConfig
from .pieces import Piece, compose_canvas, cut

InnerFraction = Annotated[float, Field(gt=0, lt=1)]


class MosaicConfig(MixConfig):
    """The size of a mosaic, and where its four images meet.

    The transform decides at which scale an image is seen, and the mosaic how much of it: with
    ``ResizeConfig(short_sides=(320, ..., 640))`` a quarter of 640 x 640 shows some images whole and a part of others.
    """

    name: Literal["mosaic"] = "mosaic"
    size: tuple[PositiveInt, PositiveInt] = (640, 640)
    """Height and width of the mosaic in pixels."""
    middle: tuple[InnerFraction, InnerFraction] = (0.25, 0.75)
    """The least and the greatest fraction of a side at which the point lies where the four images meet; every fraction
    between is equally likely."""

    @model_validator(mode="after")
    def _check_middle(self) -> "MosaicConfig":
        if self.middle[0] > self.middle[1]:
            raise ValueError(f"middle goes from the least to the greatest; got {self.middle}")
        return self


@MIXES.register("mosaic", MosaicConfig)
class Mosaic(Mix):
    """Four images, one in each quarter of a canvas, the first at the top left.

    Of an image that is larger than its quarter a random part is seen, and one that is smaller touches the middle;
    around it is the mean colour, with no objects and no known class. The box of an object with a mask becomes that of
    what is seen of it, any other is clipped. Objects and regions to ignore of which nothing is seen are dropped.
    """

    def __init__(self, dataset: Dataset, config: MosaicConfig) -> None:
        super().__init__(dataset, config, partners=3, tasks=("detection", "semantic"))
        self.size, self.middle = config.size, config.middle

    def join(self, records: Sequence[Record], generator: np.random.Generator) -> Record:
        rows, columns = (_split_side(side, generator.uniform(*self.middle)) for side in self.size)
        quarters = [(row, column) for row in rows for column in columns]
        return compose_canvas(
            [_fill(quarter, record, generator) for quarter, record in zip(quarters, records, strict=True)], self.size
        )


Span = tuple[int, int]
"""Where a quarter begins and ends along one side of the canvas."""


def _split_side(side: int, fraction: float) -> tuple[Span, Span]:
    """Return the two parts of a side that meet at a fraction of it."""
    middle = round(side * fraction)
    return (0, middle), (middle, side)


def _fill(quarter: tuple[Span, Span], record: Record, generator: np.random.Generator) -> Piece:
    """Return the part of an image that is seen in a quarter, and where it is on the canvas."""
    (top, height, canvas_top), (left, width, canvas_left) = (
        _fit(span, length, generator) for span, length in zip(quarter, record.image.shape[:2], strict=True)
    )
    return Piece(cut(record, Window(left, top, width, height)), canvas_left, canvas_top)


def _fit(span: Span, length: int, generator: np.random.Generator) -> tuple[int, int, int]:
    """Return along one side where in the image the part begins, its length, and where on the canvas it begins."""
    first, last = span
    shown = min(last - first, length)
    start = int(generator.integers(length - shown + 1))
    return start, shown, (last - shown if first == 0 else first)
