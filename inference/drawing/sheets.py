"""Text and legends below pictures, pictures side by side, and picture files."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from .style import DrawingConfig, Picture, class_color
from .text import draw_text, render_text

_MIN_WIDTH = 160  # minimum width of a picture with text below it, in pixels
_MARGIN = 4  # pixels around the text below a picture


def draw_lines(image: Picture, lines: Sequence[str], config: DrawingConfig = DrawingConfig()) -> Picture:
    """Return the image with lines of text below it, on white.

    An image that is too narrow for text is enlarged by an integer factor.
    """
    image = _widen(image)
    texts = [render_text(line, config.text_height(image), config.font) for line in lines]
    strip = np.full((sum(map(len, texts)) + _MARGIN, image.shape[1], 3), 255, dtype=np.uint8)
    top = _MARGIN // 2
    for text in texts:
        draw_text(strip, (_MARGIN, top), text, (0, 0, 0))
        top += len(text)
    return np.vstack([image, strip])


def add_legend(
    image: Picture, labels: Sequence[int], class_names: Sequence[str], config: DrawingConfig = DrawingConfig()
) -> Picture:
    """Return the image with the names of the given classes below it, each beside a square in its color.

    As many as fit stand in a line.
    """
    image = _widen(image)
    size, left, top = config.text_height(image), _MARGIN, 0
    places, line = [], len(render_text("", size, config.font))
    for label in labels:
        text = render_text(str(class_names[label]), size, config.font)
        width = size + 2 * _MARGIN + text.shape[1]
        if left > _MARGIN and left + width > image.shape[1]:
            left, top = _MARGIN, top + line
        places.append((label, text, left, top))
        left, line = left + width, max(line, len(text))
    strip = np.full((top + line + _MARGIN if places else _MARGIN, image.shape[1], 3), 255, dtype=np.uint8)
    for label, text, left, top in places:
        square = top + _MARGIN // 2 + (len(text) - size) // 2
        cv2.rectangle(strip, (left, square), (left + size - 1, square + size - 1), class_color(label), cv2.FILLED)
        draw_text(strip, (left + size + _MARGIN, top + _MARGIN // 2), text, (0, 0, 0))
    return np.vstack([image, strip])


def _widen(image: Picture) -> Picture:
    """Return the image, enlarged by an integer factor if it is too narrow for text."""
    factor = -(-_MIN_WIDTH // image.shape[1])
    return image if factor == 1 else np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


def side_by_side(pictures: Sequence[Picture]) -> Picture:
    """Concatenate pictures from left to right, padded with white at the bottom."""
    height = max(map(len, pictures))
    padded = [
        np.pad(picture, ((0, height - len(picture)), (0, 0), (0, 0)), constant_values=255) for picture in pictures
    ]
    return np.hstack(padded)


def write_image(path: str | os.PathLike[str], image: Picture) -> None:
    """Write an RGB image to a file; its suffix determines the format. Raises ValueError for an unknown format."""
    path = Path(path)
    if not cv2.haveImageWriter(path.name):
        raise ValueError(f"cannot encode {path.name}: {path.suffix!r} is not an image format")
    # Level 1 is OpenCV's default too, but with another strategy, whose files are half as large again.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix.lower() == ".png" else []
    _, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    path.write_bytes(encoded.tobytes())
