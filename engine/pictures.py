"""Pictures of what a model found, for people."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from ..data import Dataset, Transform, TransformConfig, collate
from ..models import Model
from ..structures import Detections
from .evaluate import detect_batch

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_color(label: int) -> tuple[int, int, int]:
    """A colour (RGB) of its own for every label: hues a golden angle apart."""
    pixel = np.array([[[int(label * 67.5 * 1.1) % 180, 200, 255]]], dtype=np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def draw_boxes(
    image: UInt8[ndarray, "h w 3"],
    boxes: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    scores: Tensor | None = None,
) -> UInt8[ndarray, "h w 3"]:
    """The image (RGB) with boxes (original pixels), class names and, where given, scores."""
    image = np.ascontiguousarray(image).copy()
    scale = max(0.35, min(image.shape[:2]) / 1000)
    thickness = max(1, round(2 * scale))
    for index, (box, label) in enumerate(zip(boxes.round().int().tolist(), labels.tolist(), strict=True)):
        color = class_color(label)
        text = str(class_names[label]) if scores is None else f"{class_names[label]} {scores[index]:.2f}"
        cv2.rectangle(image, box[:2], box[2:], color, thickness, cv2.LINE_AA)
        (width, height), baseline = cv2.getTextSize(text, _FONT, scale, 1)
        left = max(0, min(box[0], image.shape[1] - width))
        bottom = max(box[1], height + baseline)
        cv2.rectangle(image, (left, bottom - height - baseline), (left + width, bottom), color, cv2.FILLED)
        cv2.putText(image, text, (left, bottom - baseline // 2 - 1), _FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return image


def confident(detections: Detections, score: float) -> Detections:
    """The detections from a score up."""
    kept = detections.scores >= score
    masks = None if detections.masks is None else detections.masks[kept]
    return Detections(detections.boxes[kept], detections.labels[kept], detections.scores[kept], masks)


def draw_comparisons(
    model: Model,
    dataset: Dataset,
    transform: TransformConfig,
    path: str | os.PathLike[str],
    *,
    count: int = 8,
    score: float = 0.5,
) -> None:
    """A grid of a data set's first images: the truth on the left of each pair, what the model finds on the right."""
    pairs = [
        _captioned(np.hstack([truth, found]))
        for truth, found in _compare(model, dataset, transform, min(count, len(dataset)), score)
    ]
    write_image(path, _grid(pairs, columns=2))


def _compare(
    model: Model, dataset: Dataset, transform: TransformConfig, count: int, score: float
) -> Iterator[tuple[ndarray, ndarray]]:
    prepare = Transform(transform, seed=0)
    training = model.training
    model.eval()
    for index in range(count):
        record = dataset.read(index)
        batch = collate([prepare(record, 0, index)], model.size_divisor)
        found = confident(detect_batch(model, batch)[0], score)
        truth = draw_boxes(record.image, Tensor(record.boxes), Tensor(record.labels).long(), dataset.class_names)
        yield truth, draw_boxes(record.image, found.boxes, found.labels, dataset.class_names, found.scores)
    model.train(training)


def _captioned(pair: ndarray) -> ndarray:
    """The two halves named, in a strip above them."""
    strip = np.full((18, pair.shape[1], 3), 255, dtype=np.uint8)
    for text, left in (("truth", 4), ("found", pair.shape[1] // 2 + 4)):
        cv2.putText(strip, text, (left, 13), _FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([strip, pair])


def _grid(tiles: Sequence[ndarray], columns: int) -> ndarray:
    """Tiles of any size on a white sheet."""
    height, width = (max(tile.shape[axis] for tile in tiles) + 6 for axis in (0, 1))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def write_image(path: str | os.PathLike[str], image: UInt8[ndarray, "h w 3"]) -> None:
    """Write an RGB image; the ending of the name says how."""
    path = Path(path)
    done, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"cannot encode {path.name}: {path.suffix!r} is no image format")
    path.write_bytes(encoded.tobytes())
