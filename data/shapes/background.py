"""Backgrounds and camera effects of generated scenes: clouds, thin lines, blur and noise, unlike any of the classes."""

import numpy as np
from jaxtyping import Int, UInt8

from .portable_generator import PortableGenerator
from .raster import FULL_COVER, Patch, fill
from .shape_polygons import SUBPIXEL, TURN, UNIT, heading
from .textures import OPAQUE, blend, hsv_color

Image = UInt8[np.ndarray, "h w 3"]


def draw_background(generator: PortableGenerator, height: int, width: int) -> Image:
    """Draw a muted background of two colors with up to seven thin lines on it."""
    position, value = generator.integer(0, 1535), generator.integer(40, 235)
    first = hsv_color(position, generator.integer(0, 70), value)
    second = hsv_color(
        position + generator.integer(0, 400),
        generator.integer(0, 90),
        min(max(value + generator.integer(-45, 45), 20), 250),
    )
    image = blend(first, second, smooth_map(generator, height, width)[..., None]).astype(np.uint8)
    for _ in range(generator.integer(0, 7)):
        _draw_line(generator, image)
    return image


def smooth_map(generator: PortableGenerator, height: int, width: int) -> Int[np.ndarray, "h w"]:
    """Return a smooth map of opacities: random values on a coarse grid, interpolated linearly."""
    cells = generator.choice((1, 2, 3, 5, 8))
    values = generator.bytes(cells + 1, cells + 1).astype(np.int32)
    for length in (height, width):
        # Each pass interpolates the first axis and transposes, so that two passes do both axes.
        position = np.arange(length) * cells * OPAQUE // length
        cell, fraction = position // OPAQUE, (position % OPAQUE)[:, None].astype(np.int32)
        values = blend(values[cell], values[cell + 1], fraction).T
    return values


def _draw_line(generator: PortableGenerator, image: Image) -> None:
    """Draw a thin straight line that is slightly lighter or darker than the background."""
    height, width = image.shape[:2]
    x, y = generator.integer(0, width) * SUBPIXEL, generator.integer(0, height) * SUBPIXEL
    direction, length = generator.integer(0, TURN - 1), generator.integer(width // 4, width) * SUBPIXEL
    thickness = generator.integer(8, 28)
    along = heading(direction) * length // (2 * UNIT)
    across = heading(direction + TURN // 4) * thickness // (2 * UNIT)
    line = [np.array([x, y]) + np.stack([along + across, along - across, -along - across, across - along])]
    draw_gray(image, fill(line), 255 if generator.bernoulli(50) else 0, generator.integer(20, 90))


def draw_gray(image: Image, patch: Patch, level: int, percent: int) -> None:
    """Draw a patch in a gray level 0..255, with an opacity in percent."""
    patch = patch.crop(*image.shape[:2])
    opacity = patch.cover[..., None].astype(np.int32) * OPAQUE * percent // (FULL_COVER * 100)
    image[patch.window] = blend(image[patch.window], np.array(level, dtype=np.int32), opacity)


def add_camera_effects(generator: PortableGenerator, image: Image) -> Image:
    """Add slight blur with a probability of 30 %, and noise of one of four strengths."""
    result = image.astype(np.int32)
    if generator.bernoulli(30):
        for _ in range(2):
            previous, following = np.concatenate([result[:1], result[:-1]]), np.concatenate([result[1:], result[-1:]])
            result = ((previous + 2 * result + following + 2) // 4).swapaxes(0, 1)
    strength = generator.choice((0, 4, 8, 14))
    noise = generator.bytes(2, *image.shape[:2]).sum(axis=0, dtype=np.int32) - 255
    return np.clip(result + (noise * strength // 255)[..., None], 0, 255).astype(np.uint8)
