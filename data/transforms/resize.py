"""Resizing the whole image, as detectors are trained and evaluated."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import albumentations as A
import cv2
import numpy as np
from albumentations.augmentations.crops.transforms import BaseCrop
from jaxtyping import Float, UInt8
from numpy import ndarray
from pydantic import Field

from .base import TRANSFORMS, Transform, TransformConfig
from .color import ColorJitterConfig


class ResizeConfig(TransformConfig):
    """Defaults are the field's for COCO at evaluation; training adds more short sides and a flip."""

    name: Literal["resize"] = "resize"
    short_sides: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(800,), min_length=1)
    """The short side gets one of these, in pixels, drawn anew each time."""
    long_side: int = Field(default=1333, gt=0)
    """But the long side gets no longer than this."""
    flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    crop: float = Field(default=1.0, gt=0, le=1)
    """What is resized is a random part of the image, of which each side has a share drawn from this to 1 of the image's
    (detectron2's ``relative_range``); an object of whose box it shows nothing is dropped. 1 is the whole image."""
    color_jitter: ColorJitterConfig = ColorJitterConfig()

    def output_short_side(self) -> int:
        """The longest, within the bound for the long side."""
        return min(max(self.short_sides), self.long_side)


@TRANSFORMS.register("resize", ResizeConfig)
def build_resize(seed: int, config: ResizeConfig) -> Transform:
    """A random part if wanted, its short side to one of several lengths, a flip, and if wanted other colours."""
    steps = [
        *([RandomPart(config.crop)] if config.crop < 1 else []),
        ResizeShortSide(config.short_sides, config.long_side),
        A.HorizontalFlip(p=config.flip),
        *config.color_jitter.steps(),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class Resize(A.DualTransform):
    """Resize by a drawn factor. Sizes are rounded to nearest, as detectron2 does; bilinear without antialiasing, as
    torchvision's detectors resize. A subclass says what is drawn, and what factor that means for an image."""

    def __init__(self) -> None:
        super().__init__(p=1.0)

    @abstractmethod
    def scale(self, height: int, width: int, drawn: Any) -> float:
        """The factor for an image of this size."""

    def apply(self, img: UInt8[ndarray, "h w c"], drawn: Any, **params: Any) -> UInt8[ndarray, "_ _ c"]:
        """Resize the pixels."""
        height, width = self._size(img.shape, drawn)
        return cv2.resize(img, (width, height), interpolation=cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: UInt8[ndarray, "h w"], drawn: Any, **params: Any) -> UInt8[ndarray, "_ _"]:
        """The pixel whose centre is nearest: OpenCV's plain nearest takes the one up and left of it."""
        height, width = self._size(mask.shape, drawn)
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)

    def apply_to_masks(self, masks: UInt8[ndarray, "n h w"], drawn: Any, **params: Any) -> UInt8[ndarray, "n _ _"]:
        """Each straight into its place: albumentations resizes them one by one and copies all of them together."""
        resized = np.empty((len(masks), *self._size(masks.shape[1:], drawn)), np.uint8)
        for mask, place in zip(masks, resized, strict=True):
            cv2.resize(mask, place.shape[::-1], dst=place, interpolation=cv2.INTER_NEAREST_EXACT)
        return resized

    def apply_to_bboxes(self, bboxes: ndarray, **params: Any) -> ndarray:
        """Albumentations hands boxes over in shares of the image, which a resize leaves as they are."""
        return bboxes

    def apply_to_keypoints(self, keypoints: ndarray, drawn: Any, **params: Any) -> ndarray:
        """By the sizes before and after."""
        return resize_points(keypoints, params["shape"], self._size(params["shape"], drawn))

    def _size(self, shape: Sequence[int], drawn: Any) -> tuple[int, int]:
        """Height and width afterwards."""
        scale = self.scale(shape[0], shape[1], drawn)
        return max(1, int(shape[0] * scale + 0.5)), max(1, int(shape[1] * scale + 0.5))


def resize_points(points: Float[ndarray, "k c"], before: Sequence[int], after: Sequence[int]) -> Float[ndarray, "k c"]:
    """Albumentations' keypoints (x, y, ...; whole numbers are the middles of pixels) in an image that was resized from
    one height and width to another.

    Albumentations' own resizes multiply them by the factor asked for: that keeps the middle of the first pixel where it
    is, and forgets that the new size was rounded.
    """
    moved = points.copy()
    for axis in (0, 1):
        moved[:, axis] = (points[:, axis] + 0.5) * (after[1 - axis] / before[1 - axis]) - 0.5
    return moved


class ResizeShortSide(Resize):
    """The short side gets a drawn length, or the long side its limit, whichever is smaller.

    None of albumentations' own resizes has both bounds.
    """

    def __init__(self, short_sides: tuple[int, ...], long_side: int) -> None:
        super().__init__()
        self.short_sides, self.long_side = short_sides, long_side

    def get_params(self) -> dict[str, Any]:
        """The drawn length."""
        return {"drawn": self.py_random.choice(self.short_sides)}

    def scale(self, height: int, width: int, drawn: int) -> float:
        """Both bounds hold."""
        return min(drawn / min(height, width), self.long_side / max(height, width))

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """For albumentations' own printing of a pipeline."""
        return ("short_sides", "long_side")


class RandomPart(BaseCrop):
    """A part of the image at a random place; the share of each side is drawn by itself.

    Albumentations' crops want a size in pixels, or move every border in by a draw of its own.
    """

    def __init__(self, least: float) -> None:
        super().__init__(p=1.0)
        self.least = least

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The drawn part: left, top, right, bottom."""
        (top, bottom), (left, right) = (self._draw_span(side) for side in params["shape"][:2])
        return {"crop_coords": (left, top, right, bottom)}

    def _draw_span(self, side: int) -> tuple[int, int]:
        """Where along a side of the image it begins and ends."""
        length = max(1, round(side * self.py_random.uniform(self.least, 1)))
        start = self.py_random.randint(0, side - length)
        return start, start + length

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """For albumentations' own printing of a pipeline."""
        return ("least",)
