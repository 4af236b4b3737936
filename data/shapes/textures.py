"""Colours and the patterns that fill an object, in whole numbers only."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int, Integer, UInt8

from .portable_generator import PortableGenerator
from .shape_polygons import SUBPIXEL, TURN, UNIT, heading

Colour = Int[np.ndarray, "3"]
"""Red, green and blue, 0..255."""

Whole = Integer[np.ndarray, "..."]
Plane = Integer[np.ndarray, "h w"]

ALL = 256  # what a share is out of
_CONTRAST = 56  # least distance in brightness between an object and the ground, of 255


def hue(position: int, saturation: int, value: int) -> Colour:
    """A colour of the wheel; ``position`` in 1/1536 of it (0 is red), ``saturation`` and ``value`` 0..255."""
    wheel = (position + np.array([0, 1024, 512])) % 1536
    pure = np.clip(np.abs(wheel - 768) - 256, 0, 255)
    return (value * (255 * 255 - saturation * (255 - pure)) // (255 * 255)).astype(np.int32)


def brightness(colour: Colour) -> int:
    """Luma of ITU-R BT.601, 0..255."""
    return int(colour @ np.array([299, 587, 114])) // 1000


def vivid(generator: PortableGenerator, ground: int) -> Colour:
    """A strong colour that stands off a ground of that brightness."""
    while True:
        colour = hue(generator.roll(0, 1535), generator.roll(130, 255), generator.roll(80, 255))
        if _stands_off(colour, ground):
            return colour


def _stands_off(colour: Colour, ground: int) -> bool:
    return abs(brightness(colour) - ground) >= _CONTRAST


def blend(first: Whole, second: Whole, share: Whole) -> Whole:
    """``first`` where ``share`` is 0, ``second`` where it is ``ALL``, and the mixture between."""
    return (first * (ALL - share) + second * share + ALL // 2) // ALL


def _plain(u: Plane, v: Plane, period: int) -> Plane:
    return np.zeros_like(u)


def _stripes(u: Plane, v: Plane, period: int) -> Plane:
    return (2 * u // period) % 2 * ALL


def _checks(u: Plane, v: Plane, period: int) -> Plane:
    return (2 * u // period + 2 * v // period) % 2 * ALL


def _dots(u: Plane, v: Plane, period: int) -> Plane:
    across, down = u % period - period // 2, v % period - period // 2
    return (10 * (across**2 + down**2) < period**2) * ALL


def _gradient(u: Plane, v: Plane, period: int) -> Plane:
    return (u - u.min()) * ALL // max(int(u.max() - u.min()), 1)


_PATTERNS: tuple[Callable[[Plane, Plane, int], Plane], ...] = (_plain, _stripes, _checks, _dots, _gradient)


def texture(generator: PortableGenerator, height: int, width: int, ground: int) -> UInt8[np.ndarray, "h w 3"]:
    """A pattern of two strong colours, or of one and a shade of it."""
    main = vivid(generator, ground)
    other = main * generator.roll(55, 75) // 100
    if generator.chance(30) or not _stands_off(other, ground):
        other = vivid(generator, ground)
    y, x = np.mgrid[:height, :width] * SUBPIXEL
    (cosine, sine), period = heading(generator.roll(0, TURN - 1)), generator.roll(5 * SUBPIXEL, 12 * SUBPIXEL)
    u, v = (x * cosine + y * sine) // UNIT, (y * cosine - x * sine) // UNIT
    share = generator.choose(_PATTERNS)(u, v, period)[..., None].astype(np.int32)
    return blend(main, other, share).astype(np.uint8)
