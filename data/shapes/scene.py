"""Drawing of scenes: images with the annotations of their objects.

A scene depends only on (config, seed, split, index). It is computed in integers, and so is the same on every machine.

Objects are painted back to front. An object is left out if more than 60 % of it or of an earlier object would be hidden
or outside the image. Masks and boxes are those of the visible parts.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from pydantic import Field

from ...structures import Config
from .background import add_camera_effects, draw_background, draw_gray
from .portable_generator import PortableGenerator
from .raster import FULL_COVER, Patch, fill
from .shape_polygons import CLASS_NAMES, SUBPIXEL, TURN, place_shape
from .stuff import draw_stuff
from .textures import OPAQUE, blend, brightness, draw_texture

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

ImageSize = Annotated[int, Field(ge=64, le=2048)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

_MIN_VISIBLE = 40  # minimum visible part of an object in percent
_TRIES = 12  # maximum number of attempts to place an object
# In every period of 50 scenes, the scene with the first index has a crowd, and the one with the second has no objects.
_PERIOD, _CROWD_INDEX, _EMPTY_INDEX = 50, 1, 2


class SceneConfig(Config):
    """The size and content of scenes."""

    size: ImageSize = 160
    """The mean height and width in pixels; both vary from 4/5 to 6/5 of it."""
    max_objects: int = Field(default=6, ge=1, le=50)
    """The maximum number of objects of a scene, crowds not counted."""
    stuff: bool = False
    """Draw the background as areas of stuff classes, for panoptic segmentation."""


@dataclass(frozen=True, slots=True, eq=False)
class SceneObject:
    """An object of a scene, or a crowd: a cluster of many small objects of one class."""

    label: int
    mask: Bool[np.ndarray, "h w"]
    """The visible pixels."""
    full_area: int
    """The area in pixels without occlusion, including the part outside the image."""
    crowd: bool = False

    @property
    def area(self) -> int:
        """The number of visible pixels."""
        return int(self.mask.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The box (x1, y1, x2, y2) of the visible part, on pixel edges (one pixel is 1 wide)."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image and its objects, back to front."""

    image: UInt8[np.ndarray, "h w 3"]
    objects: tuple[SceneObject, ...]
    stuff: UInt8[np.ndarray, "h w"] | None = None
    """The stuff class of every pixel, even behind objects; 255 is void. None for a scene without stuff."""


def draw_scene(config: SceneConfig, seed: int, split: Split, index: int) -> Scene:
    """Draw the scene with this index in a split."""
    generator = PortableGenerator(seed, SPLITS.index(split), index)
    height, width = (generator.integer(config.size * 4 // 5, config.size * 6 // 5) for _ in range(2))
    background, stuff = draw_stuff(generator, height, width) if config.stuff else (None, None)
    canvas = _Canvas(draw_background(generator, height, width) if background is None else background, generator)
    if index % _PERIOD == _CROWD_INDEX:
        canvas.add_crowd()
    if index % _PERIOD != _EMPTY_INDEX:
        for _ in range(generator.integer(1, config.max_objects)):
            canvas.add_object()
    return Scene(add_camera_effects(generator, canvas.image), canvas.objects(), stuff)


class _Canvas:
    """An image being painted, and the index of the object that each pixel shows."""

    def __init__(self, image: UInt8[np.ndarray, "h w 3"], generator: PortableGenerator) -> None:
        self.image = image
        self._generator = generator
        self._owner: Int64[np.ndarray, "h w"] = np.full(image.shape[:2], -1, dtype=np.int64)
        self._painted: list[tuple[int, int, bool]] = []  # label, full area, whether it is a crowd

    def add_object(self) -> None:
        """Paint a random object in front of the others, unless no suitable position is found."""
        generator = self._generator
        height, width = self._owner.shape
        min_radius, max_radius = 9 * SUBPIXEL, min(height, width) * SUBPIXEL * 9 // 20
        for _ in range(_TRIES):
            label, direction = generator.integer(0, len(CLASS_NAMES) - 1), generator.integer(0, TURN - 1)
            # Squaring the random number makes small objects more frequent, as in photographs.
            radius = min_radius + (max_radius - min_radius) * generator.integer(0, 100) ** 2 // 100**2
            margin = radius * 3 // 4
            x, y = (generator.integer(margin, length * SUBPIXEL - margin) for length in (width, height))
            if self._paint(label, [fill(place_shape(label, (x, y), radius, direction))]):
                return

    def add_crowd(self) -> None:
        """Paint a cluster of small objects of one class, unless it would hide too much of other objects."""
        generator = self._generator
        height, width = self._owner.shape
        label, spread = generator.integer(0, len(CLASS_NAMES) - 1), min(height, width) * SUBPIXEL // 5
        middle = [generator.integer(spread, length * SUBPIXEL - spread) for length in (width, height)]
        members = []
        for _ in range(generator.integer(24, 36)):
            x, y = (
                center + (generator.integer(-spread, spread) + generator.integer(-spread, spread)) // 2
                for center in middle
            )
            radius = generator.integer(4 * SUBPIXEL, 6 * SUBPIXEL)
            members.append(fill(place_shape(label, (x, y), radius, generator.integer(0, TURN - 1))))
        self._paint(label, members, crowd=True)

    def _paint(self, label: int, members: list[Patch], crowd: bool = False) -> bool:
        """Paint an object, or the members of a crowd, in front of the other objects.

        Returns False, and paints nothing, if too little of any object would remain visible.
        """
        owner, number = self._owner.copy(), len(self._painted)
        patches = [member.crop(*owner.shape) for member in members]
        for patch in patches:
            owner[patch.window][patch.mask] = number
        full_area = int((owner == number).sum()) if crowd else int(members[0].mask.sum())
        painted = [*self._painted, (label, full_area, crowd)]
        visible = np.bincount(owner[owner >= 0], minlength=len(painted))
        if any(100 * pixels < _MIN_VISIBLE * area for pixels, (_, area, _) in zip(visible, painted, strict=True)):
            return False
        self._owner, self._painted = owner, painted
        for member, patch in zip(members, patches, strict=True):
            draw_gray(self.image, member.move(2, 2), level=0, percent=25)  # a shadow
            height, width = patch.cover.shape
            background = _mean_brightness(self.image[patch.window])
            colors = draw_texture(self._generator, height, width, background)
            opacity = patch.cover[..., None].astype(np.int32) * OPAQUE // FULL_COVER
            self.image[patch.window] = blend(self.image[patch.window], colors, opacity)
        return True

    def objects(self) -> tuple[SceneObject, ...]:
        """Return the painted objects, back to front."""
        return tuple(
            SceneObject(label, self._owner == number, full_area, crowd)
            for number, (label, full_area, crowd) in enumerate(self._painted)
        )


def _mean_brightness(image: UInt8[np.ndarray, "h w 3"]) -> int:
    return brightness(image.reshape(-1, 3).sum(axis=0, dtype=np.int64) // max(image.size // 3, 1))
