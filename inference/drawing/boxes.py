"""Boxes with labels that stay off the objects, and keypoints."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from .style import Color, DrawingConfig, Picture, class_color
from .text import draw_text, render_text

_GAP = 2  # pixels between the frame of a label and its text
_COVERED, _TAKEN = 1, 3  # the cost per cell of a small object under a label, and of another label
_SMALL = 4  # an object with a smaller side than this many times the size of the text must not be covered


def draw_boxes(
    image: Picture,
    boxes: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    scores: Tensor | None = None,
    config: DrawingConfig = DrawingConfig(),
) -> Picture:
    """Return a copy of the image with boxes (xyxy in its pixels), their class names and, if given, their scores.

    Of two boxes the first is drawn on top. Labels are placed where they cover few small objects and other labels.
    """
    image = np.ascontiguousarray(image).copy()
    corners = boxes.round().int().tolist()
    names = [str(class_names[label]) for label in labels.tolist()]
    if scores is not None:
        names = [f"{name} {score:.2f}" for name, score in zip(names, scores.tolist(), strict=True)]
    colors = config.colors(labels.tolist())
    for box, color in zip(reversed(corners), reversed(colors), strict=True):
        width = config.line_width(image, box)
        cv2.rectangle(image, box[:2], box[2:], color, width, cv2.LINE_AA if width > 1 else cv2.LINE_8)
    places = _LabelPlaces(image, corners, config.text_height(image))
    for box, name, color in zip(corners, names, colors, strict=True):
        coverage = render_text(name, config.text_height(image, box), config.font)
        size = coverage.shape[1] + 2 * _GAP, coverage.shape[0]
        left, top = places.take(box, size)
        cv2.rectangle(image, (left, top), (left + size[0] - 1, top + size[1] - 1), color, cv2.FILLED)
        draw_text(image, (left + _GAP, top), coverage, (0, 0, 0))
    return image


class _LabelPlaces:
    """The places for labels in an image that are free: a coarse map of what must not be covered."""

    def __init__(self, image: Picture, boxes: Iterable[Sequence[int]], text_size: int) -> None:
        """Mark the small objects, given their boxes (xyxy); large ones may be covered in a corner."""
        self.height, self.width = image.shape[:2]
        self.cell = max(1, text_size // 4)
        self.costs = np.zeros((self.height // self.cell + 1, self.width // self.cell + 1), np.uint16)
        self.small = _SMALL * text_size
        for box in boxes:
            if min(box[2] - box[0], box[3] - box[1]) < self.small:
                self.costs[self._cells(box)] += _COVERED

    def take(self, box: Sequence[int], size: tuple[int, int]) -> tuple[int, int]:
        """Return the left and top of the best place of a label of ``size`` (width, height), and mark it as taken."""
        (left, top, right, bottom), (width, height) = box, size
        outside = [(left, top - height), (left, bottom + 1), (right - width + 1, top - height)]
        outside += [(right + 1, top), (left - width, top), (right - width + 1, bottom + 1)]
        inside = (left, top)  # first if the object is large: there the label belongs to it beyond doubt
        is_large = min(right - left, bottom - top) >= self.small
        places = [self._inside_image(place, size) for place in (outside[0], inside, *outside[1:])]
        if not is_large:
            places = [self._inside_image(place, size) for place in (*outside, inside)]
        # The places are in order of preference: each position in the list costs as much as a covered cell.
        areas = [self._cells((x, y, x + width, y + height)) for x, y in places]
        x, y = places[int(np.argmin([int(self.costs[area].sum()) + rank for rank, area in enumerate(areas)]))]
        self.costs[self._cells((x, y, x + width, y + height))] += _TAKEN
        return x, y

    def _inside_image(self, place: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        """Return a place moved into the image."""
        return max(0, min(place[0], self.width - size[0])), max(0, min(place[1], self.height - size[1]))

    def _cells(self, box: Sequence[int]) -> tuple[slice, slice]:
        """Return the rows and columns of the map that a box (xyxy) covers; boxes side by side share none."""
        left, top, right, bottom = (round(max(0, value) / self.cell) for value in box)
        return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def draw_keypoints(
    image: Picture,
    points: Float[ndarray, "n k 2"],
    edges: Sequence[tuple[int, int]],
    shown: Bool[ndarray, "n k"],
    hollow: Bool[ndarray, "n k"],
) -> Picture:
    """Return a copy of the image with the keypoints (x, y) for which ``shown`` is True, and lines along ``edges``.

    Each object has its own color. A keypoint is a white disk with a rim of this color; where ``hollow`` is True the
    disk is black.
    """
    image = np.ascontiguousarray(image).copy()
    radius = max(2, round(min(image.shape[:2]) / 150))
    for index, (pixels, drawn, dark) in enumerate(zip(points.astype(int).tolist(), shown, hollow, strict=True)):
        color: Color = class_color(index)
        for start, end in edges:
            if drawn[start] and drawn[end]:
                cv2.line(image, pixels[start], pixels[end], color, max(1, radius // 2), cv2.LINE_AA)
        for number in np.flatnonzero(drawn).tolist():
            pixel, fill = pixels[number], (0, 0, 0) if dark[number] else (255, 255, 255)
            cv2.circle(image, pixel, radius, fill, cv2.FILLED, cv2.LINE_AA)
            cv2.circle(image, pixel, radius, color, 1, cv2.LINE_AA)
    return image
