"""Colors, and the sizes of lines and text, which follow the size of the image."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from pydantic import PositiveInt

from ...structures import Config, UnitInterval

Picture = UInt8[ndarray, "_ _ 3"]
"""An image in RGB."""
Color = tuple[int, int, int]
"""A color in RGB."""

_HUES, _HUE_STEP = 80, 74.25  # OpenCV's hues are in half degrees; 80 of these steps are a multiple of a full turn
_TONES = ((200, 255), (110, 255), (255, 200), (140, 200))  # saturation and value
_MIN_TEXT = 12  # the smallest legible text, in pixels


class DrawingConfig(Config):
    """How predictions are drawn. Sizes that are None follow the size of the image."""

    color_by: Literal["class", "object"] = "class"
    """Whether objects of one ``class`` have one color, or each ``object`` has its own. Class maps have the colors of
    their classes."""
    opacity: UnitInterval = 0.5
    """Opacity of masks and class maps: 0 draws outlines only, 1 hides the image."""
    thickness: PositiveInt | None = None
    """Width of lines in pixels. None: a 500th of the image's short side, less around small objects."""
    text_size: PositiveInt | None = None
    """Size of text in pixels. None: a 45th of the image's short side, less beside small objects."""
    font: Path | None = None
    """A font file (TrueType or OpenType) to prefer. None: the font that is part of Vertebra, and the system's fonts for
    characters that it lacks."""

    def line_width(self, image: Picture, box: Sequence[int] | None = None) -> int:
        """Return the width of lines in an image, in pixels; around a ``box`` (xyxy) it is at most a 25th of the box."""
        if self.thickness is not None:
            return self.thickness
        width = max(1, round(min(image.shape[:2]) / 500))
        return width if box is None else max(1, min(width, round(_side(box) / 25)))

    def text_height(self, image: Picture, box: Sequence[int] | None = None) -> int:
        """Return the size of text in an image, in pixels; beside a ``box`` (xyxy) it is at most a fifth of the box."""
        if self.text_size is not None:
            return self.text_size
        size = max(_MIN_TEXT, round(min(image.shape[:2]) / 45))
        return size if box is None else max(_MIN_TEXT, min(size, round(_side(box) / 5)))

    def colors(self, labels: Sequence[int]) -> list[Color]:
        """Return the color of each object, given their labels."""
        return [class_color(index if self.color_by == "object" else label) for index, label in enumerate(labels)]


def _side(box: Sequence[int]) -> float:
    """Return the side of a square with the area of a box (xyxy)."""
    return math.sqrt(max(0, (box[2] - box[0]) * (box[3] - box[1])))


def class_color(label: int) -> Color:
    """Return the RGB color of a label; consecutive labels have very different hues.

    There are 80 hues in four tones, so that all labels of a semantic map (0..254) have different colors.
    """
    tone = _TONES[label // _HUES % len(_TONES)]
    pixel = np.array([[[int(label % _HUES * _HUE_STEP) % 180, *tone]]], dtype=np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def mix(pixels: UInt8[ndarray, "*n 3"], color: ndarray | Color, opacity: float) -> UInt8[ndarray, "*n 3"]:
    """Return pixels blended with a color, or with a color for each pixel."""
    weight = round(opacity * 256)
    mixed = pixels.astype(np.uint16) * (256 - weight) + np.asarray(color, np.uint16) * weight + 128
    return (mixed >> 8).astype(np.uint8)
