"""Drawing of predictions into images."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from ..structures import IGNORE, PanopticSegmentation

Picture = UInt8[ndarray, "_ _ 3"]
"""An image in RGB."""

FONT = cv2.FONT_HERSHEY_SIMPLEX
_HUES, _HUE_STEP = 80, 74.25  # OpenCV's hues are in half degrees; 80 of these steps are a multiple of a full turn
_TONES = ((200, 255), (110, 255), (255, 200), (140, 200))  # saturation and value
_MIN_WIDTH = 160  # minimum width of a picture with text below it, in pixels
_LINE_HEIGHT = 16  # distance of two lines of text in pixels


def class_color(label: int) -> tuple[int, int, int]:
    """Return the RGB color of a label; consecutive labels have very different hues.

    There are 80 hues in four tones, so that all labels of a semantic map (0..254) have different colors.
    """
    tone = _TONES[label // _HUES % len(_TONES)]
    pixel = np.array([[[int(label % _HUES * _HUE_STEP) % 180, *tone]]], dtype=np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def draw_boxes(
    image: Picture,
    boxes: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    scores: Tensor | None = None,
) -> Picture:
    """Return a copy of the image with boxes (xyxy in its pixels), their class names and, if given, their scores."""
    image = np.ascontiguousarray(image).copy()
    scale = max(0.35, min(image.shape[:2]) / 1000)
    thickness = max(1, round(2 * scale))
    for index, (box, label) in enumerate(zip(boxes.round().int().tolist(), labels.tolist(), strict=True)):
        color = class_color(label)
        text = str(class_names[label]) if scores is None else f"{class_names[label]} {scores[index]:.2f}"
        cv2.rectangle(image, box[:2], box[2:], color, thickness, cv2.LINE_AA)
        (width, height), baseline = cv2.getTextSize(text, FONT, scale, 1)
        left = max(0, min(box[0], image.shape[1] - width))
        bottom = max(box[1], height + baseline)
        cv2.rectangle(image, (left, bottom - height - baseline), (left + width, bottom), color, cv2.FILLED)
        cv2.putText(image, text, (left, bottom - baseline // 2 - 1), FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return image


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
        color = class_color(index)
        for start, end in edges:
            if drawn[start] and drawn[end]:
                cv2.line(image, pixels[start], pixels[end], color, max(1, radius // 2), cv2.LINE_AA)
        for number in np.flatnonzero(drawn).tolist():
            pixel, fill = pixels[number], (0, 0, 0) if dark[number] else (255, 255, 255)
            cv2.circle(image, pixel, radius, fill, cv2.FILLED, cv2.LINE_AA)
            cv2.circle(image, pixel, radius, color, 1, cv2.LINE_AA)
    return image


def blend_masks(image: Picture, masks: Iterable[tuple[Bool[ndarray, "_ _"], tuple[int, int, int]]]) -> Picture:
    """Return a copy of the image with each mask blended in half by its color, and outlined in the full color.

    ``masks`` are pairs of a mask and an RGB color.
    """
    painted = image.copy()
    for mask, color in masks:
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        if not width:
            continue
        box = slice(top, top + height), slice(left, left + width)
        inside, region = mask[box], painted[box]
        region[inside] = (region[inside].astype(np.uint16) + np.array(color, np.uint16) + 1) // 2
        outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(region, outlines, -1, color, 1)
    return painted


def draw_classes(image: Picture, classes: UInt8[ndarray, "_ _"], class_names: Sequence[str]) -> Picture:
    """Return a copy of the image with each pixel blended in half with the color of its class, and a legend below it.

    Pixels of the background class and ignored pixels (255) are unchanged.
    """
    shown = [label for label in np.unique(classes).tolist() if label != IGNORE and class_names[label] != "background"]
    painted = image.copy()
    for label in shown:
        mask = classes == label
        painted[mask] = (image[mask].astype(np.uint16) + np.array(class_color(label), np.uint16) + 1) // 2
    return _add_legend(painted, shown, class_names)


def draw_panoptic(image: Picture, segmentation: PanopticSegmentation, class_names: Sequence[str]) -> Picture:
    """Return a copy of the image with each segment blended in half with the color of its class, and a legend below it.

    Things are also outlined. Void pixels are unchanged.
    """
    ids, painted = segmentation.ids.cpu().numpy(), image.copy()
    for segment in segmentation.segments:
        mask = ids == segment.id
        if segment.is_thing:
            painted = blend_masks(painted, [(mask, class_color(segment.label))])
        else:
            painted[mask] = (image[mask].astype(np.uint16) + np.array(class_color(segment.label), np.uint16) + 1) // 2
    return _add_legend(painted, sorted({segment.label for segment in segmentation.segments}), class_names)


def _add_legend(painted: Picture, labels: Sequence[int], class_names: Sequence[str]) -> Picture:
    """Return a picture with the names of the given classes below it, each beside a square in its color."""
    picture = draw_lines(painted, [str(class_names[label]) for label in labels], indent=_LINE_HEIGHT)
    top = len(picture) - _LINE_HEIGHT * len(labels) - 4
    for number, label in enumerate(labels):
        corner = (4, top + _LINE_HEIGHT * number + 4)
        cv2.rectangle(picture, corner, (corner[0] + 9, corner[1] + 9), class_color(label), cv2.FILLED)
    return picture


def draw_lines(image: Picture, lines: Sequence[str], indent: int = 0) -> Picture:
    """Return the image with lines of text below it, on white, indented by ``indent`` pixels.

    An image that is too narrow for text is enlarged by an integer factor.
    """
    factor = -(-_MIN_WIDTH // image.shape[1])
    image = np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    strip = np.full((_LINE_HEIGHT * len(lines) + 4, image.shape[1], 3), 255, dtype=np.uint8)
    for number, line in enumerate(lines, start=1):
        cv2.putText(strip, line, (4 + indent, _LINE_HEIGHT * number - 3), FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([image, strip])


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
    _, encoded = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(encoded.tobytes())
