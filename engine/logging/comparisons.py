"""A sheet of pictures that shows ground truth and predictions side by side."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy import ndarray

from ...data import Dataset, Record, build_transform, collate, resize_annotations
from ...inference import predict_originals, side_by_side, write_image
from ...inference.drawing import FONT
from ...models import Model, SemanticInference
from ...structures import PartConfig
from ..loop.evaluate import evaluation_mode
from ..tasks import Task

COUNT, SCORE = 8, 0.5
"""The number of images shown, and the minimum score of the predictions drawn."""
LONG_SIDE = 640
"""Maximum length of the long side of each picture in pixels, so that sheets of large photos stay viewable."""


def draw_comparisons(
    task: Task,
    model: Model,
    dataset: Dataset,
    transform: PartConfig,
    path: str | os.PathLike[str],
    semantic: SemanticInference = SemanticInference(),
) -> None:
    """Write a grid of pictures of a data set's first images: in each pair ground truth left, prediction right.

    ``transform`` is the validation transform; ``semantic`` sets the windows and scales of a semantic head.
    """
    with evaluation_mode(model):
        pairs = list(_compare(task, model, dataset, transform, semantic))
    write_image(path, _grid(pairs, columns=2))


def _compare(
    task: Task, model: Model, dataset: Dataset, transform: PartConfig, semantic: SemanticInference
) -> Iterator[ndarray]:
    """Yield a captioned (ground truth, prediction) picture for each of the first ``COUNT`` images."""
    prepare = build_transform(transform)
    for index in range(min(COUNT, len(dataset))):
        record = dataset.read(index)
        batch = collate([prepare(record, 0, index)], model.size_divisor)
        shown = shrink_record(record, LONG_SIDE)
        # The model gets the image at the size it was trained for; only the prediction is resized to the picture.
        sizes = [(shown.image.shape[0], shown.image.shape[1])]
        (prediction,) = predict_originals(model, batch.images, sizes, semantic)
        yield _captioned(task.draw_truth(shown), task.draw(shown.image, prediction, SCORE))


def shrink_record(record: Record, long_side: int) -> Record:
    """Return a record with its image and annotations shrunk so that no side exceeds ``long_side`` pixels."""
    height, width = record.image.shape[:2]
    scale = long_side / max(height, width)
    if scale >= 1:
        return record
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = replace(record, image=cv2.resize(record.image, size[::-1], interpolation=cv2.INTER_AREA))
    return resize_annotations(small, (height, width), size)


def _captioned(truth: ndarray, prediction: ndarray) -> ndarray:
    """Return two pictures side by side, below a strip with their captions."""
    strip = np.full((18, truth.shape[1] + prediction.shape[1], 3), 255, dtype=np.uint8)
    for text, left in (("truth", 4), ("prediction", truth.shape[1] + 4)):
        cv2.putText(strip, text, (left, 13), FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([strip, side_by_side([truth, prediction])])


def _grid(tiles: Sequence[ndarray], columns: int) -> ndarray:
    """Return a white sheet with the pictures, which may differ in size, in a grid."""
    height, width = (max(tile.shape[axis] for tile in tiles) + 6 for axis in (0, 1))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet
