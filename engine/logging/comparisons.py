"""A sheet of pictures, truth beside prediction, for people."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy import ndarray

from ...data import Dataset, build_transform, collate
from ...models import Model
from ...structures import PartConfig
from ..drawing import FONT, side_by_side, write_image
from ..loop.evaluate import evaluation_mode
from ..tasks import Task
from .thumbnails import shrink_record

COUNT, SCORE = 8, 0.5
"""How many images are shown, and from which score up what is found in them."""
LONGEST = 640
"""Pixels of the longer side of each picture: a sheet of large photos is still one to look at."""


def draw_comparisons(
    task: Task, model: Model, dataset: Dataset, transform: PartConfig, path: str | os.PathLike[str]
) -> None:
    """A grid of a data set's first images: the truth on the left of each pair, what the model finds on the right."""
    with evaluation_mode(model):
        pairs = list(_compare(task, model, dataset, transform))
    write_image(path, _grid(pairs, columns=2))


def _compare(task: Task, model: Model, dataset: Dataset, transform: PartConfig) -> Iterator[ndarray]:
    prepare = build_transform(transform)
    for index in range(min(COUNT, len(dataset))):
        record = dataset.read(index)
        batch = collate([prepare(record, 0, index)], model.size_divisor)
        shown = shrink_record(record, LONGEST)
        # The model sees the image as ever, and predictions are put back into the one that is drawn on.
        batch = replace(batch, original_sizes=(shown.image.shape[:2],))
        found = task.draw(shown.image, task.predict(model, batch)[0], SCORE)
        yield _captioned(task.draw_truth(shown), found)


def _captioned(truth: ndarray, found: ndarray) -> ndarray:
    """The two side by side, named in a strip above them."""
    strip = np.full((18, truth.shape[1] + found.shape[1], 3), 255, dtype=np.uint8)
    for text, left in (("truth", 4), ("found", truth.shape[1] + 4)):
        cv2.putText(strip, text, (left, 13), FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([strip, side_by_side([truth, found])])


def _grid(tiles: Sequence[ndarray], columns: int) -> ndarray:
    """Tiles of any size on a white sheet."""
    height, width = (max(tile.shape[axis] for tile in tiles) + 6 for axis in (0, 1))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet
