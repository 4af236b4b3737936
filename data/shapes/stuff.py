"""Backgrounds of generated panoptic scenes: up to three areas with muted textures, which are the stuff classes."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

from ...structures import IGNORE
from .background import Image, smooth_map
from .portable_generator import PortableGenerator
from .shape_polygons import SUBPIXEL, TURN, UNIT, heading
from .textures import OPAQUE, Grid, blend, hsv_color

StuffMap = UInt8[np.ndarray, "h w"]

_MAX_AREAS = 3
_MIN_PERIOD, _MAX_PERIOD = 6, 10  # of textures, in pixels


def draw_stuff(generator: PortableGenerator, height: int, width: int) -> tuple[Image, StuffMap]:
    """Draw a background of one to three areas with different textures; return it with the stuff label of each pixel.

    Areas are separated by straight lines. Pixels along a line are labeled 255 (void), as annotators leave them.
    """
    areas = _divide(generator, height, width)
    labels = np.zeros((height, width), np.uint8)
    image = np.zeros((height, width, 3), np.uint8)
    free = list(range(len(STUFF_NAMES)))
    for area in range(int(areas.max()) + 1):
        label = free.pop(generator.integer(0, len(free) - 1))
        position, value = generator.integer(0, 1535), generator.integer(70, 220)
        first = hsv_color(position, generator.integer(0, 70), value)
        second = hsv_color(position, generator.integer(0, 70), value + (35 if value < 145 else -35))
        opacity = _TEXTURES[STUFF_NAMES[label]](generator, height, width)
        inside = areas == area
        image[inside] = blend(first, second, opacity[..., None].astype(np.int32)).astype(np.uint8)[inside]
        labels[inside] = label
    neighbors = np.ones((3, 3), np.uint8)
    labels[cv2.dilate(areas, neighbors) != cv2.erode(areas, neighbors)] = IGNORE
    return image, labels


def _divide(generator: PortableGenerator, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Divide an image by up to two random lines into areas, numbered from 0 without gaps."""
    areas = np.zeros((height, width), np.uint8)
    y, x = np.mgrid[:height, :width]
    for number in range(1, generator.integer(1, _MAX_AREAS)):
        cosine, sine = heading(generator.integer(0, TURN - 1)).tolist()
        middle_x, middle_y = (generator.integer(side // 4, side - side // 4) for side in (width, height))
        side = (x - middle_x) * cosine + (y - middle_y) * sine > 0
        areas[side] = number
    return np.unique(areas, return_inverse=True)[1].reshape(areas.shape).astype(np.uint8)


def _clouds(generator: PortableGenerator, height: int, width: int) -> Grid:
    return smooth_map(generator, height, width)


def _stripes(generator: PortableGenerator, height: int, width: int) -> Grid:
    u, _, period = _axes(generator, height, width)
    return (2 * u // period) % 2 * OPAQUE


def _mesh(generator: PortableGenerator, height: int, width: int) -> Grid:
    u, v, period = _axes(generator, height, width)
    return ((3 * (u % period) < period) | (3 * (v % period) < period)) * OPAQUE


def _grain(generator: PortableGenerator, height: int, width: int) -> Grid:
    blocks = generator.bytes(-(-height // 2), -(-width // 2)) % 2
    return np.repeat(np.repeat(blocks, 2, axis=0), 2, axis=1)[:height, :width].astype(np.int32) * OPAQUE


def _axes(generator: PortableGenerator, height: int, width: int) -> tuple[Grid, Grid, int]:
    """Return pixel coordinates along two rotated axes, and a texture's period, all in 1/``SUBPIXEL`` pixels."""
    cosine, sine = heading(generator.integer(0, TURN - 1)).tolist()
    y, x = np.mgrid[:height, :width] * SUBPIXEL
    period = generator.integer(_MIN_PERIOD * SUBPIXEL, _MAX_PERIOD * SUBPIXEL)
    return (x * cosine + y * sine) // UNIT, (y * cosine - x * sine) // UNIT, period


_TEXTURES: dict[str, Callable[[PortableGenerator, int, int], Grid]] = {
    "clouds": _clouds,
    "stripes": _stripes,
    "mesh": _mesh,
    "grain": _grain,
}

STUFF_NAMES = tuple(_TEXTURES)
