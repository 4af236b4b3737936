"""A sheet of pictures that shows ground truth and predictions side by side."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy import ndarray

from ...data import Batch, Dataset, Record, build_transform, collate, resize_annotations
from ...inference import predict_originals
from ...inference.drawing import draw_text, render_text, side_by_side, write_image
from ...models import Model, ViewConfig
from ...structures import PartConfig
from ..loop.evaluate import evaluation_mode
from ..tasks import Task

COUNT, SCORE = 8, 0.5
"""The number of images shown, and the minimum score of the predictions drawn."""
WIDTH, HEIGHT, GAP = 1920, 360, 6
"""Width of the sheet, maximum height of its pictures except in the last row, and distance between them, in pixels."""
MAX_ENLARGEMENT = 4.0
"""Factor by which a small image is enlarged at most."""


def draw_comparisons(
    task: Task,
    model: Model,
    dataset: Dataset,
    transform: PartConfig,
    path: str | os.PathLike[str],
    views: ViewConfig | None = None,
) -> None:
    """Write a sheet of pictures of a data set's first images: in each pair ground truth left, prediction right.

    The pairs in a row have one height, so that the row is filled whatever their shapes. ``transform`` is the validation
    transform; ``views`` sets the windows and scales of predictions.
    """
    records, prepare = [dataset.read(index) for index in range(min(COUNT, len(dataset)))], build_transform(transform)
    rows = []
    with evaluation_mode(model):
        for row, height in _fill_rows([record.image.shape[:2] for record in records]):
            batches = (collate([prepare(records[index], 0, index)], model.size_divisor) for index in row)
            pairs = (
                _compare(task, model, records[index], batch, height, views)
                for index, batch in zip(row, batches, strict=True)
            )
            rows.append(side_by_side([_pad_white(pair, GAP, GAP) for pair in pairs]))
    width = max(row.shape[1] for row in rows)
    write_image(path, np.vstack([_pad_white(row, 0, width - row.shape[1]) for row in rows]))


def _pad_white(picture: ndarray, rows: int, columns: int) -> ndarray:
    """Return a picture padded with white at the bottom and right."""
    return np.pad(picture, ((0, rows), (0, columns), (0, 0)), constant_values=255)


def _fill_rows(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[list[int], int]]:
    """Yield the indices of the images in each row, given their (height, width), and the height of their pictures."""
    row: list[int] = []
    for index in range(len(sizes)):
        row.append(index)
        # A pair is twice as wide as its image.
        height = (WIDTH - GAP * len(row)) / sum(2 * sizes[number][1] / sizes[number][0] for number in row)
        if height <= HEIGHT or index == len(sizes) - 1:
            enlarged = max(sizes[number][0] for number in row) * MAX_ENLARGEMENT
            yield row, max(1, int(min(height, HEIGHT, enlarged)))
            row = []


def _compare(task: Task, model: Model, record: Record, batch: Batch, height: int, views: ViewConfig | None) -> ndarray:
    """Return a captioned picture of the ground truth and the prediction of an image, each ``height`` pixels high.

    ``batch`` holds the image as the model needs it; only the prediction is resized to the picture.
    """
    shown = resize_record(record, height)
    sizes = [(shown.image.shape[0], shown.image.shape[1])]
    (prediction,) = predict_originals(model, batch.images, sizes, views)
    return _captioned(task.draw_truth(shown), task.draw(shown.image, prediction, SCORE))


def resize_record(record: Record, height: int) -> Record:
    """Return a record with its image and annotations resized to a height in pixels."""
    old = record.image.shape[0], record.image.shape[1]
    size = height, max(1, round(old[1] * height / old[0]))
    if size == old:
        return record
    method = cv2.INTER_AREA if height < old[0] else cv2.INTER_LINEAR
    resized = replace(record, image=cv2.resize(record.image, size[::-1], interpolation=method))
    return resize_annotations(resized, old, size)


def _captioned(truth: ndarray, prediction: ndarray) -> ndarray:
    """Return two pictures side by side, below a strip with their captions."""
    texts = [render_text(text, 13) for text in ("truth", "prediction")]
    strip = np.full((len(texts[0]) + 2, truth.shape[1] + prediction.shape[1], 3), 255, dtype=np.uint8)
    for text, left in zip(texts, (2, truth.shape[1] + 2), strict=True):
        draw_text(strip, (left, 1), text, (0, 0, 0))
    return np.vstack([strip, side_by_side([truth, prediction])])
