"""Drawing one picture with its truth.

Every pixel is a function of (config, seed, split, index) in integer arithmetic, on every machine alike; so the first
100 pictures of a split are the same whether 100 are drawn or 1000.

Objects are painted back to front. One that would leave less than 40 % of any object to be seen, itself included,
is not painted at all: so what is drawn and what is annotated never differ. Masks and boxes are of the visible part.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field

from ...structures import Config
from .background import background, lens, shade
from .portable_generator import PortableGenerator
from .raster import FULL, Patch, fill
from .shape_polygons import CLASS_NAMES, SUBPIXEL, TURN, place_shape
from .textures import ALL, blend, brightness, texture

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

ImageSize = Annotated[int, Field(ge=64, le=2048)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

_LEAST_VISIBLE = 40  # percent of an object
_TRIES = 12
_EVERY = 50  # of 50 pictures, one has a crowd and one no object
_CROWD, _EMPTY = 1, 2


class SceneConfig(Config):
    """What the pictures are like."""

    size: ImageSize = 160
    """Pixels; heights and widths vary from 4/5 to 6/5 of it."""
    max_objects: int = Field(default=6, ge=1, le=50)


@dataclass(frozen=True, slots=True, eq=False)
class SceneObject:
    """One object, or a crowd: a clump of small ones of a class that nobody would count."""

    label: int
    mask: Bool[np.ndarray, "h w"]
    """The visible part."""
    whole_area: int
    """Pixels it would have if nothing hid it and the frame did not end."""
    crowd: bool = False

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(self.mask.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """``x1 y1 x2 y2`` of the visible part, on pixel edges (one pixel is 1 wide)."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture and its objects, back to front."""

    image: UInt8[np.ndarray, "h w 3"]
    objects: tuple[SceneObject, ...]


def draw_scene(config: SceneConfig, seed: int, split: Split, index: int) -> Scene:
    """The picture with that number."""
    generator = PortableGenerator(seed, SPLITS.index(split), index)
    height, width = (generator.roll(config.size * 4 // 5, config.size * 6 // 5) for _ in range(2))
    canvas = _Canvas(background(generator, height, width), generator)
    if index % _EVERY == _CROWD:
        canvas.add_crowd()
    if index % _EVERY != _EMPTY:
        for _ in range(generator.roll(1, config.max_objects)):
            canvas.add_object()
    return Scene(lens(generator, canvas.picture), canvas.objects())


class _Canvas:
    """A picture in the making, and which object each pixel shows."""

    def __init__(self, picture: UInt8[np.ndarray, "h w 3"], generator: PortableGenerator) -> None:
        self.picture = picture
        self._generator = generator
        self._owner: Int64[np.ndarray, "h w"] = np.full(picture.shape[:2], -1, dtype=np.int64)
        self._painted: list[tuple[int, int, bool]] = []  # label, whole area, crowd

    def add_object(self) -> None:
        """Paint one object in front, if there is room for it."""
        generator = self._generator
        height, width = self._owner.shape
        least, most = 9 * SUBPIXEL, min(height, width) * SUBPIXEL * 9 // 20
        for _ in range(_TRIES):
            label, direction = generator.roll(0, len(CLASS_NAMES) - 1), generator.roll(0, TURN - 1)
            # Small ones are more frequent, as in photographs.
            radius = least + (most - least) * generator.roll(0, 100) ** 2 // 100**2
            margin = radius * 3 // 4
            x, y = (generator.roll(margin, length * SUBPIXEL - margin) for length in (width, height))
            if self._paint(label, [fill(place_shape(label, (x, y), radius, direction))]):
                return

    def add_crowd(self) -> None:
        """Paint a clump of small objects of one class."""
        generator = self._generator
        height, width = self._owner.shape
        label, spread = generator.roll(0, len(CLASS_NAMES) - 1), min(height, width) * SUBPIXEL // 5
        middle = [generator.roll(spread, length * SUBPIXEL - spread) for length in (width, height)]
        members = []
        for _ in range(generator.roll(24, 36)):
            x, y = (
                center + (generator.roll(-spread, spread) + generator.roll(-spread, spread)) // 2 for center in middle
            )
            radius = generator.roll(4 * SUBPIXEL, 6 * SUBPIXEL)
            members.append(fill(place_shape(label, (x, y), radius, generator.roll(0, TURN - 1))))
        self._paint(label, members, crowd=True)

    def _paint(self, label: int, members: list[Patch], crowd: bool = False) -> bool:
        """Paint the members of one object in front of all; or nothing, if too little of any object would be seen."""
        owner, number = self._owner.copy(), len(self._painted)
        patches = [member.crop(*owner.shape) for member in members]
        for patch in patches:
            owner[patch.window][patch.mask] = number
        whole = int((owner == number).sum()) if crowd else int(members[0].mask.sum())
        painted = [*self._painted, (label, whole, crowd)]
        visible = np.bincount(owner[owner >= 0], minlength=len(painted))
        if any(100 * seen < _LEAST_VISIBLE * area for seen, (_, area, _) in zip(visible, painted, strict=True)):
            return False
        self._owner, self._painted = owner, painted
        for member, patch in zip(members, patches, strict=True):
            shade(self.picture, member.move(2, 2), tone=0, percent=25)
            colours = texture(self._generator, *patch.cover.shape, ground=_mean_brightness(self.picture[patch.window]))
            share = patch.cover[..., None].astype(np.int32) * ALL // FULL
            self.picture[patch.window] = blend(self.picture[patch.window], colours, share)
        return True

    def objects(self) -> tuple[SceneObject, ...]:
        """What was painted, back to front."""
        return tuple(
            SceneObject(label, self._owner == number, whole, crowd)
            for number, (label, whole, crowd) in enumerate(self._painted)
        )


def _mean_brightness(picture: UInt8[np.ndarray, "h w 3"]) -> int:
    return brightness(picture.reshape(-1, 3).sum(axis=0, dtype=np.int64) // max(picture.size // 3, 1))
