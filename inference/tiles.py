"""Prediction of large images in overlapping tiles, a few at a time, so that memory does not grow with the image.

``tile_detections`` merges the detections of the tiles, ``tile_maps`` their class maps.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic import Field, PositiveInt

from ..models import window_starts
from ..structures import Config, Detections, SemanticLogits, UnitInterval
from .preprocessing import Photo
from .tile_detections import TileDetections, merge_detections
from .tile_maps import merge_maps


class TileConfig(Config):
    """How a large image is divided into tiles, and how the detections of neighboring tiles are merged.

    The tiles are preprocessed like separate images. Differences to SAHI (2202.06934), whose defaults are the same
    unless noted: two detections are compared inside the overlap of their tiles, where both tiles saw the same pixels,
    instead of as a whole, and detections of one tile are never merged; SAHI merges any two detections of a class of
    which one covers half of the other.
    """

    size: PositiveInt = 1024
    """Side length of the square tiles in pixels of the image; a smaller image is predicted as a whole. SAHI: follows
    the size of the image."""
    overlap: float = Field(default=0.2, ge=0, lt=1)
    """Overlap of neighboring tiles, as a fraction of ``size``. Without overlap an object at a seam stays in parts."""
    whole_image: bool = True
    """Also detect objects in the whole image at once, for those larger than a tile; not if the preprocessing is a
    function, which may not shrink the image."""
    match_threshold: UnitInterval = 0.5
    """Two detections of a class in different tiles are one object if their IoU, inside the overlap of the tiles, is at
    least this. SAHI: intersection over the smaller box."""
    cover_threshold: UnitInterval = 0.5
    """A detection that ends at the border of its tile is dropped if one of its class in another tile, which is larger
    or is not cut, covers at least this fraction of it. SAHI: of any detection."""
    border: UnitInterval = 0.01
    """A detection is cut by the border of its tile if it comes as near as this fraction of ``size``."""
    batch_size: PositiveInt = 4
    """Tiles per batch."""

    @property
    def stride(self) -> int:
        """Distance of neighboring tiles in pixels."""
        return max(1, self.size - round(self.size * self.overlap))

    def starts(self, side: int) -> list[int]:
        """Return where the tiles along a side of an image begin; the last one ends with the image."""
        return sorted(set(window_starts(side, self.size, self.stride)))


class Tile(NamedTuple):
    """The part of an image that a tile shows, in pixels."""

    left: int
    top: int
    right: int
    bottom: int

    def cut_from(self, photo: Photo) -> Photo:
        """Return the pixels of the tile."""
        return np.ascontiguousarray(photo[self.top : self.bottom, self.left : self.right])


def is_tiled(photo: Photo, config: TileConfig) -> bool:
    """Return whether an image is larger than a tile."""
    return max(photo.shape[:2]) > config.size


def divide(photo: Photo, config: TileConfig) -> list[list[Tile]]:
    """Return the tiles of an image, row by row."""
    height, width = photo.shape[:2]
    return [
        [
            Tile(left, top, min(left + config.size, width), min(top + config.size, height))
            for left in config.starts(width)
        ]
        for top in config.starts(height)
    ]


def detect_in_tiles(
    predict: Callable[[Sequence[Photo]], Sequence[Detections]], photo: Photo, config: TileConfig
) -> Detections:
    """Detect objects tile by tile, and return the merged detections, best first, in pixels of the image.

    ``predict`` returns the detections of each image of a batch in its pixels. Masks stay grids over their boxes; those
    of an object that was cut are united on a grid over its box.
    """
    views: list[TileDetections] = []
    size = photo.shape[0], photo.shape[1]
    if config.whole_image:
        (found,) = predict([photo])
        views.append(TileDetections.of(found, (0, 0, size[1], size[0]), size, margin=0.0))
    tiles = [tile for row in divide(photo, config) for tile in row]
    for batch, predictions in _predict_batches(predict, photo, tiles, config.batch_size):
        margin = config.border * config.size
        views += [TileDetections.of(found, tile, size, margin) for tile, found in zip(batch, predictions, strict=True)]
    return merge_detections(views, config.match_threshold, config.cover_threshold)


def segment_in_tiles(
    predict: Callable[[Sequence[Photo]], Sequence[SemanticLogits]], photo: Photo, config: TileConfig
) -> UInt8[torch.Tensor, "h w"]:
    """Predict class logits tile by tile, and return the class map of the image, blended where tiles overlap.

    ``predict`` returns the logits of each image of a batch.
    """
    height, width = photo.shape[:2]
    rows = (
        [logits for _, batch in _predict_batches(predict, photo, row, config.batch_size) for logits in batch]
        for row in divide(photo, config)
    )
    tile_size = min(config.size, height), min(config.size, width)
    return merge_maps(rows, (config.starts(height), config.starts(width)), tile_size, (height, width))


def _predict_batches(
    predict: Callable[[Sequence[Photo]], Sequence[Any]], photo: Photo, tiles: Sequence[Tile], batch_size: int
) -> Iterator[tuple[Sequence[Tile], Sequence[Any]]]:
    """Yield (tiles, predictions) batch by batch."""
    for first in range(0, len(tiles), batch_size):
        batch = tiles[first : first + batch_size]
        yield batch, predict([tile.cut_from(photo) for tile in batch])
