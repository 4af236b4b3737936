"""Colors and patterns of generated objects, computed in integers."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int, Integer, UInt8

from .portable_generator import PortableGenerator
from .shape_polygons import SUBPIXEL, TURN, UNIT, heading

Color = Int[np.ndarray, "3"]
"""Red, green and blue, 0..255."""

Values = Integer[np.ndarray, "..."]
Grid = Integer[np.ndarray, "h w"]

OPAQUE = 256
"""The opacity at which ``blend`` returns its second argument."""

_CONTRAST = 56  # minimum difference in brightness (0..255) between an object and its background


def hsv_color(hue: int, saturation: int, value: int) -> Color:
    """Convert HSV to RGB: the hue is in 1/1536 of a turn (0 is red), saturation and value are 0..255."""
    wheel = (hue + np.array([0, 1024, 512])) % 1536
    pure = np.clip(np.abs(wheel - 768) - 256, 0, 255)
    return (value * (255 * 255 - saturation * (255 - pure)) // (255 * 255)).astype(np.int32)


def brightness(color: Color) -> int:
    """Return the luma (0..255) of a color by ITU-R BT.601."""
    return int(color @ np.array([299, 587, 114])) // 1000


def vivid_color(generator: PortableGenerator, background: int) -> Color:
    """Draw a random saturated color that contrasts with a background of this brightness (0..255)."""
    while True:
        color = hsv_color(generator.integer(0, 1535), generator.integer(130, 255), generator.integer(80, 255))
        if _contrasts(color, background):
            return color


def _contrasts(color: Color, background: int) -> bool:
    return abs(brightness(color) - background) >= _CONTRAST


def blend(first: Values, second: Values, opacity: Values) -> Values:
    """Blend two values: ``first`` where ``opacity`` is 0, ``second`` where it is ``OPAQUE``, interpolated between."""
    return (first * (OPAQUE - opacity) + second * opacity + OPAQUE // 2) // OPAQUE


def _plain(u: Grid, v: Grid, period: int) -> Grid:
    return np.zeros_like(u)


def _stripes(u: Grid, v: Grid, period: int) -> Grid:
    return (2 * u // period) % 2 * OPAQUE


def _checks(u: Grid, v: Grid, period: int) -> Grid:
    return (2 * u // period + 2 * v // period) % 2 * OPAQUE


def _dots(u: Grid, v: Grid, period: int) -> Grid:
    across, down = u % period - period // 2, v % period - period // 2
    return (10 * (across**2 + down**2) < period**2) * OPAQUE


def _gradient(u: Grid, v: Grid, period: int) -> Grid:
    return (u - u.min()) * OPAQUE // max(int(u.max() - u.min()), 1)


_PATTERNS: tuple[Callable[[Grid, Grid, int], Grid], ...] = (_plain, _stripes, _checks, _dots, _gradient)


def draw_texture(generator: PortableGenerator, height: int, width: int, background: int) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a random pattern of two vivid colors, or of one vivid color and a darker shade of it.

    ``background`` is the brightness (0..255) of the background, with which both colors contrast.
    """
    main = vivid_color(generator, background)
    other = main * generator.integer(55, 75) // 100
    if generator.bernoulli(30) or not _contrasts(other, background):
        other = vivid_color(generator, background)
    y, x = np.mgrid[:height, :width] * SUBPIXEL
    (cosine, sine), period = heading(generator.integer(0, TURN - 1)), generator.integer(5 * SUBPIXEL, 12 * SUBPIXEL)
    u, v = (x * cosine + y * sine) // UNIT, (y * cosine - x * sine) // UNIT
    opacity = generator.choice(_PATTERNS)(u, v, period)[..., None].astype(np.int32)
    return blend(main, other, opacity).astype(np.uint8)
