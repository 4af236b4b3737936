"""Masks of objects, class maps and panoptic segmentations, blended into an image."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from ...structures import IGNORE, PanopticSegmentation
from .sheets import add_legend
from .style import Color, DrawingConfig, Picture, class_color, mix

_ROWS = 256  # rows of a class map that are blended at a time, to limit memory


class ColoredMask(NamedTuple):
    """A mask with its color; ``mask`` is a part of the image with its top left corner at ``corner`` (x, y)."""

    mask: Bool[ndarray, "_ _"]
    color: Color
    corner: tuple[int, int] = (0, 0)


def blend_masks(image: Picture, masks: Iterable[ColoredMask], config: DrawingConfig = DrawingConfig()) -> Picture:
    """Return a copy of the image with each mask blended with its color, and outlined in the full color.

    Where masks overlap, the last one is seen. A dark line around each outline separates objects of one color.
    """
    painted = image.copy()
    for mask, color, (x, y) in masks:
        left, top, columns, rows = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
        if not columns:
            continue
        inside = mask[top : top + rows, left : left + columns]
        box = slice(y + top, y + top + rows), slice(x + left, x + left + columns)
        outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        offset, width = (x + left, y + top), config.line_width(image, (0, 0, columns, rows))
        cv2.drawContours(painted, outlines, -1, _darker(color), width + 2, offset=offset)
        painted[box][inside] = mix(image[box][inside], color, config.opacity)
        cv2.drawContours(painted, outlines, -1, color, width, offset=offset)
    return painted


def _darker(color: Color) -> Color:
    """Return a dark color of the same hue."""
    red, green, blue = (value // 3 for value in color)
    return red, green, blue


def draw_classes(
    image: Picture,
    classes: UInt8[ndarray, "_ _"],
    class_names: Sequence[str],
    config: DrawingConfig = DrawingConfig(),
) -> Picture:
    """Return a copy of the image with each pixel blended with the color of its class, and a legend below it.

    Pixels of the background class and ignored pixels (255) are unchanged.
    """
    counts = cv2.calcHist([np.ascontiguousarray(classes)], [0], None, [256], [0, 256]).ravel()
    hidden = {IGNORE, *(label for label, name in enumerate(class_names) if name == "background")}
    shown = [label for label in np.flatnonzero(counts).tolist() if label not in hidden]
    painted = _blend_map(image, classes, {label: class_color(label) for label in shown}, config.opacity)
    return add_legend(painted, shown, class_names, config)


def draw_panoptic(
    image: Picture,
    segmentation: PanopticSegmentation,
    class_names: Sequence[str],
    config: DrawingConfig = DrawingConfig(),
) -> Picture:
    """Return a copy of the image with each segment blended with the color of its class, and a legend below it.

    Things are also outlined, and may each have their own color (:attr:`DrawingConfig.color_by`). Void pixels are
    unchanged.
    """
    ids = segmentation.ids.cpu().numpy()
    stuff = {segment.id: class_color(segment.label) for segment in segmentation.segments if not segment.is_thing}
    painted = _blend_map(image, ids, stuff, config.opacity)
    things = [segment for segment in segmentation.segments if segment.is_thing]
    colors = config.colors([segment.label for segment in things])
    masks = (ColoredMask(ids == segment.id, color) for segment, color in zip(things, colors, strict=True))
    painted = blend_masks(painted, masks, config)
    return add_legend(painted, sorted({segment.label for segment in segmentation.segments}), class_names, config)


def _blend_map(image: Picture, values: ndarray, colors: dict[int, Color], opacity: float) -> Picture:
    """Return a copy of the image, blended with a color at the pixels of each value in ``colors``."""
    painted = image.copy()
    if not colors:
        return painted
    keys = np.array(sorted(colors))
    palette = np.array([colors[key] for key in keys.tolist()], np.uint8)
    for top in range(0, len(image), _ROWS):
        rows = values[top : top + _ROWS]
        positions = np.searchsorted(keys, rows).clip(max=len(keys) - 1)
        chosen = keys[positions] == rows
        painted[top : top + _ROWS][chosen] = mix(image[top : top + _ROWS][chosen], palette[positions[chosen]], opacity)
    return painted
