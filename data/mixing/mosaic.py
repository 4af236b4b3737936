"""Mosaic (2004.10934): four images around a random center point."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from ..dataset import Dataset
from ..object_fields import Window
from ..types import Record
from .base import MIXES, Mix, MixConfig
from .pieces import Piece, compose_canvas, crop_record

InnerFraction = Annotated[float, Field(gt=0, lt=1)]


class MosaicConfig(MixConfig):
    """Options of mosaic: its size, and where its four images meet.

    The transform determines the scale of an image, and the mosaic how much of it is visible: with
    ``ResizeConfig(short_sides=(320, ..., 640))``, a quarter of a 640 x 640 mosaic shows some images in full and crops
    others.
    """

    name: Literal["mosaic"] = "mosaic"
    size: tuple[PositiveInt, PositiveInt] = (640, 640)
    """Height and width of the mosaic in pixels."""
    middle: tuple[InnerFraction, InnerFraction] = (0.25, 0.75)
    """Range of the point where the four images meet, as fractions of each side; it is drawn uniformly."""

    @model_validator(mode="after")
    def _check_middle(self) -> "MosaicConfig":
        if self.middle[0] > self.middle[1]:
            raise ValueError(f"middle must be (minimum, maximum); got {self.middle}")
        return self


@MIXES.register("mosaic", MosaicConfig)
class Mosaic(Mix):
    """Place four images in the quarters of a canvas, the first image at the top left.

    An image larger than its quarter is cropped at random. A smaller one touches the center point and is padded with
    ImageNet's mean color, ignored in semantic maps. An object with a mask gets the box of its visible pixels; other
    boxes are clipped. Objects and ignore regions that are no longer visible are dropped.
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
"""The start and end of a quarter along one side of the canvas, in pixels."""


def _split_side(side: int, fraction: float) -> tuple[Span, Span]:
    """Split a side of the canvas at a fraction of its length."""
    middle = round(side * fraction)
    return (0, middle), (middle, side)


def _fill(quarter: tuple[Span, Span], record: Record, generator: np.random.Generator) -> Piece:
    """Crop an image to a quarter, and return the crop with its position on the canvas."""
    (top, height, canvas_top), (left, width, canvas_left) = (
        _fit(span, length, generator) for span, length in zip(quarter, record.image.shape[:2], strict=True)
    )
    return Piece(crop_record(record, Window(left, top, width, height)), canvas_left, canvas_top)


def _fit(span: Span, length: int, generator: np.random.Generator) -> tuple[int, int, int]:
    """Return, along one side: the start of the crop in the image, its length, and its start on the canvas."""
    first, last = span
    crop_length = min(last - first, length)
    start = int(generator.integers(length - crop_length + 1))
    return start, crop_length, (last - crop_length if first == 0 else first)
