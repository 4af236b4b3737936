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

from ..object_fields import resize_nearest
from .base import TRANSFORMS, Transform, TransformConfig
from .color import ColorJitterConfig


class ResizeConfig(TransformConfig):
    """The whole image at another size; defaults are the usual ones for COCO at evaluation, and training adds more short
    sides and a flip."""

    name: Literal["resize"] = "resize"
    short_sides: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(800,), min_length=1)
    """The short side gets one of these, in pixels, drawn anew each time."""
    long_side: int = Field(default=1333, gt=0)
    """The long side gets at most so many pixels; then the short side is shorter than drawn."""
    flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    crop: float = Field(default=1.0, gt=0, le=1)
    """Resize a random part of the image, each side of which is a fraction of the image's drawn between this and 1
    (detectron2's ``relative_range``); an object of whose box it shows nothing is dropped. 1 is the whole image."""
    color_jitter: ColorJitterConfig = ColorJitterConfig()

    def output_short_side(self) -> int:
        """Return the longest short side, within the bound for the long side."""
        return min(max(self.short_sides), self.long_side)


@TRANSFORMS.register("resize", ResizeConfig)
def build_resize(seed: int, config: ResizeConfig) -> Transform:
    """Build a random part and colour jitter if the config has them, around a resize and a flip."""
    steps = [
        *([RandomPart(config.crop)] if config.crop < 1 else []),
        ResizeShortSide(config.short_sides, config.long_side),
        A.HorizontalFlip(p=config.flip),
        *config.color_jitter.steps(),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class Resize(A.DualTransform):
    """Resize by a drawn factor: sizes rounded to nearest, as detectron2 does, pixels bilinear without antialiasing, as
    torchvision's detectors are trained. Subclasses say what is drawn, and what factor that means for an image."""

    def __init__(self) -> None:
        super().__init__(p=1.0)

    @abstractmethod
    def scale(self, height: int, width: int, drawn: Any) -> float:
        """Return the factor for an image of this size."""

    def apply(self, img: UInt8[ndarray, "h w c"], drawn: Any, **params: Any) -> UInt8[ndarray, "_ _ c"]:
        height, width = self._size(img.shape, drawn)
        return cv2.resize(img, (width, height), interpolation=cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: UInt8[ndarray, "h w"], drawn: Any, **params: Any) -> UInt8[ndarray, "_ _"]:
        """Return the map with the value nearest to the centre of each new pixel."""
        return resize_nearest(mask, self._size(mask.shape, drawn))

    def apply_to_masks(self, masks: UInt8[ndarray, "n h w"], drawn: Any, **params: Any) -> UInt8[ndarray, "n _ _"]:
        """Return the resized bitmaps, each written straight into the result: albumentations would copy all of them."""
        resized = np.empty((len(masks), *self._size(masks.shape[1:], drawn)), np.uint8)
        for mask, target in zip(masks, resized, strict=True):
            cv2.resize(mask, target.shape[::-1], dst=target, interpolation=cv2.INTER_NEAREST_EXACT)
        return resized

    def apply_to_bboxes(self, bboxes: ndarray, **params: Any) -> ndarray:
        """Return the boxes as they are: albumentations has them in fractions of the image, which a resize keeps."""
        return bboxes

    def apply_to_keypoints(self, keypoints: ndarray, drawn: Any, **params: Any) -> ndarray:
        """Return the points in the resized image, whose size is rounded."""
        return resize_points(keypoints, params["shape"], self._size(params["shape"], drawn))

    def _size(self, shape: Sequence[int], drawn: Any) -> tuple[int, int]:
        """Return height and width of the resized image."""
        scale = self.scale(shape[0], shape[1], drawn)
        return max(1, int(shape[0] * scale + 0.5)), max(1, int(shape[1] * scale + 0.5))


def resize_points(points: Float[ndarray, "k c"], before: Sequence[int], after: Sequence[int]) -> Float[ndarray, "k c"]:
    """Return albumentations' keypoints in an image that was resized from one (height, width) to another.

    Columns are x, y and others; whole numbers are the middles of pixels. Albumentations' resizes multiply them by the
    factor asked for, which keeps the middle of the first pixel where it is, and forgets that the new size was rounded.
    """
    moved = points.copy()
    for axis in (0, 1):
        moved[:, axis] = (points[:, axis] + 0.5) * (after[1 - axis] / before[1 - axis]) - 0.5
    return moved


class ResizeShortSide(Resize):
    """Resize the short side to a drawn length, or the long side to its limit, whichever gives the smaller image.

    None of albumentations' resizes has both bounds.
    """

    def __init__(self, short_sides: tuple[int, ...], long_side: int) -> None:
        super().__init__()
        self.short_sides, self.long_side = short_sides, long_side

    def get_params(self) -> dict[str, Any]:
        """Draw the length of the short side."""
        return {"drawn": self.py_random.choice(self.short_sides)}

    def scale(self, height: int, width: int, drawn: int) -> float:
        return min(drawn / min(height, width), self.long_side / max(height, width))

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the arguments that albumentations prints of a pipeline."""
        return ("short_sides", "long_side")


class RandomPart(BaseCrop):
    """Crop a part of the image at a random position; the fraction of each side is drawn independently.

    Albumentations' crops want a size in pixels, or move each border by a draw of its own.
    """

    def __init__(self, least: float) -> None:
        super().__init__(p=1.0)
        self.least = least

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the part: left, top, right, bottom."""
        (top, bottom), (left, right) = (self._draw_span(side) for side in params["shape"][:2])
        return {"crop_coords": (left, top, right, bottom)}

    def _draw_span(self, side: int) -> tuple[int, int]:
        """Draw where along a side of the image the part begins and ends."""
        length = max(1, round(side * self.py_random.uniform(self.least, 1)))
        start = self.py_random.randint(0, side - length)
        return start, start + length

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the arguments that albumentations prints of a pipeline."""
        return ("least",)
