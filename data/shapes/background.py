"""What lies behind the objects and what the lens adds: clouds, thin lines, blur, grain; nothing like a class."""

import numpy as np
from jaxtyping import Int, UInt8

from .portable_generator import PortableGenerator
from .raster import FULL, Patch, fill
from .shape_polygons import SUBPIXEL, TURN, UNIT, heading
from .textures import ALL, blend, hue

Picture = UInt8[np.ndarray, "h w 3"]


def background(generator: PortableGenerator, height: int, width: int) -> Picture:
    """A muted ground with clutter on it."""
    position, value = generator.roll(0, 1535), generator.roll(40, 235)
    near = hue(position, generator.roll(0, 70), value)
    far = hue(
        position + generator.roll(0, 400), generator.roll(0, 90), min(max(value + generator.roll(-45, 45), 20), 250)
    )
    picture = blend(near, far, _clouds(generator, height, width)[..., None]).astype(np.uint8)
    for _ in range(generator.roll(0, 7)):
        _scratch(generator, picture)
    return picture


def _clouds(generator: PortableGenerator, height: int, width: int) -> Int[np.ndarray, "h w"]:
    """A smooth plane of shares: random values on a coarse grid, with straight lines between them."""
    cells = generator.choose((1, 2, 3, 5, 8))
    values = generator.grains(cells + 1, cells + 1).astype(np.int32)
    for length in (height, width):
        # Each pass stretches the first axis and turns the plane, so that two passes do both.
        place = np.arange(length) * cells * ALL // length
        cell, share = place // ALL, (place % ALL)[:, None].astype(np.int32)
        values = blend(values[cell], values[cell + 1], share).T
    return values


def _scratch(generator: PortableGenerator, picture: Picture) -> None:
    """A straight thin line, some way through the picture, a little lighter or darker than what it crosses."""
    height, width = picture.shape[:2]
    x, y = generator.roll(0, width) * SUBPIXEL, generator.roll(0, height) * SUBPIXEL
    direction, length = generator.roll(0, TURN - 1), generator.roll(width // 4, width) * SUBPIXEL
    thickness = generator.roll(8, 28)
    along = heading(direction) * length // (2 * UNIT)
    across = heading(direction + TURN // 4) * thickness // (2 * UNIT)
    line = [np.array([x, y]) + np.stack([along + across, along - across, -along - across, across - along])]
    shade(picture, fill(line), 255 if generator.chance(50) else 0, generator.roll(20, 90))


def shade(picture: Picture, patch: Patch, tone: int, percent: int) -> None:
    """Draw a patch in grey, letting the picture shine through."""
    patch = patch.crop(*picture.shape[:2])
    share = patch.cover[..., None].astype(np.int32) * ALL * percent // (FULL * 100)
    picture[patch.window] = blend(picture[patch.window], np.array(tone, dtype=np.int32), share)


def lens(generator: PortableGenerator, picture: Picture) -> Picture:
    """The picture as a plain camera would give it: now and then a little blur, and some grain."""
    result = picture.astype(np.int32)
    if generator.chance(30):
        for _ in range(2):
            before, after = np.concatenate([result[:1], result[:-1]]), np.concatenate([result[1:], result[-1:]])
            result = ((before + 2 * result + after + 2) // 4).swapaxes(0, 1)
    strength = generator.choose((0, 4, 8, 14))
    grain = generator.grains(2, *picture.shape[:2]).sum(axis=0, dtype=np.int32) - 255
    return np.clip(result + (grain * strength // 255)[..., None], 0, 255).astype(np.uint8)
