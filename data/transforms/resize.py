"""Resizing of the full image, for training and evaluation of detectors."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import albumentations as A
import cv2
from albumentations.augmentations.crops.transforms import BaseCrop
from jaxtyping import Float, UInt8
from numpy import ndarray
from pydantic import Field

from ...structures import Rounding, ShortSideResize
from ..object_fields import resize_bitmaps, resize_nearest
from .base import TRANSFORMS, Transform, TransformConfig
from .color import ColorJitterConfig
from .mask_steps import HorizontalFlip


class ResizeConfig(TransformConfig):
    """A resize of the short side to a given length, with a limit for the long side.

    The defaults are the usual ones for evaluation on COCO; for training, add more short sides and a flip.
    """

    name: Literal["resize"] = "resize"
    short_sides: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(800,), min_length=1)
    """Lengths of the short side in pixels, of which one is drawn for each sample."""
    long_side: int = Field(default=1333, gt=0)
    """Maximum length of the long side in pixels; if it is exceeded, the image is resized to this long side instead."""
    rounding: Rounding = "nearest"
    """How the sides of the resized image are rounded, see :class:`~vertebra.structures.ShortSideResize`."""
    flip: float = Field(default=0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    crop: float = Field(default=1.0, gt=0, le=1)
    """First crop the image at random: each side of the crop is a fraction of the image's side drawn from [crop, 1]
    (detectron2's ``relative_range``), and objects with no visible box are dropped. 1 keeps the full image."""
    color_jitter: ColorJitterConfig = ColorJitterConfig()

    def output_short_side(self) -> int:
        """Return the largest possible length of the short side in pixels."""
        return min(max(self.short_sides), self.long_side)


@TRANSFORMS.register("resize", ResizeConfig)
def build_resize(seed: int, config: ResizeConfig) -> Transform:
    """Build the transform: a random crop if the config has it, a resize, a flip, and color jitter if it has it."""
    steps = [
        *([RandomRelativeCrop(config.crop)] if config.crop < 1 else []),
        ResizeShortSide(config.short_sides, config.long_side, config.rounding),
        HorizontalFlip(p=config.flip),
        *config.color_jitter.steps(),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class Resize(A.DualTransform):
    """Base class of resizes by a random factor.

    Interpolation is bilinear without antialiasing, as torchvision's detectors are trained. Subclasses draw a random
    value in ``get_params``, and :meth:`output_size` turns it into a size.
    """

    def __init__(self) -> None:
        super().__init__(p=1.0)

    @abstractmethod
    def output_size(self, shape: Sequence[int], drawn: Any) -> tuple[int, int]:
        """Return the (height, width) of the resized image for an image of this shape and a random value ``drawn``."""

    def apply(self, img: UInt8[ndarray, "h w c"], drawn: Any, **params: Any) -> UInt8[ndarray, "_ _ c"]:
        height, width = self.output_size(img.shape, drawn)
        return cv2.resize(img, (width, height), interpolation=cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: UInt8[ndarray, "h w"], drawn: Any, **params: Any) -> UInt8[ndarray, "_ _"]:
        """Resize a map by nearest-neighbor interpolation."""
        return resize_nearest(mask, self.output_size(mask.shape, drawn))

    def apply_to_masks(self, masks: UInt8[ndarray, "n h w"], drawn: Any, **params: Any) -> UInt8[ndarray, "n _ _"]:
        """Resize bitmaps by nearest-neighbor interpolation."""
        return resize_bitmaps(masks, self.output_size(masks.shape[1:], drawn))

    def apply_to_bboxes(self, bboxes: ndarray, **params: Any) -> ndarray:
        """Return the boxes unchanged, since albumentations stores them as fractions of the image."""
        return bboxes

    def apply_to_keypoints(self, keypoints: ndarray, drawn: Any, **params: Any) -> ndarray:
        """Return the keypoints in the resized image, scaled by the exact ratio of the sizes."""
        return resize_points(keypoints, params["shape"], self.output_size(params["shape"], drawn))


def resize_points(points: Float[ndarray, "k c"], before: Sequence[int], after: Sequence[int]) -> Float[ndarray, "k c"]:
    """Rescale albumentations' keypoints from an image of size ``before`` to size ``after``, both (height, width).

    The first columns are x and y, in which integers are pixel centers. Albumentations' own resizes multiply them by the
    requested factor, which leaves the center of the first pixel in place and ignores the rounding of the new size.
    """
    resized = points.copy()
    for axis in (0, 1):
        resized[:, axis] = (points[:, axis] + 0.5) * (after[1 - axis] / before[1 - axis]) - 0.5
    return resized


class ResizeShortSide(Resize):
    """Resize the short side to a random length, or the long side to its limit, whichever gives the smaller image.

    Albumentations has no resize with both bounds.
    """

    def __init__(self, short_sides: tuple[int, ...], long_side: int, rounding: Rounding = "nearest") -> None:
        super().__init__()
        self.short_sides, self.long_side, self.rounding = short_sides, long_side, rounding
        self._resizes = {
            side: ShortSideResize(short_side=side, long_side=long_side, rounding=rounding) for side in short_sides
        }

    def get_params(self) -> dict[str, Any]:
        """Draw the length of the short side."""
        return {"drawn": self.py_random.choice(self.short_sides)}

    def output_size(self, shape: Sequence[int], drawn: int) -> tuple[int, int]:
        return self._resizes[drawn].output_size(shape[0], shape[1])

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the names of the constructor arguments, which albumentations prints."""
        return ("short_sides", "long_side", "rounding")


class RandomRelativeCrop(BaseCrop):
    """Crop the image at a random position; each side is an independent random fraction, from ``least`` to 1.

    Albumentations' crops need a size in pixels, or draw the position of each border independently.
    """

    def __init__(self, least: float) -> None:
        super().__init__(p=1.0)
        self.least = least

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the crop: left, top, right, bottom."""
        (top, bottom), (left, right) = (self._draw_span(side) for side in params["shape"][:2])
        return {"crop_coords": (left, top, right, bottom)}

    def _draw_span(self, side: int) -> tuple[int, int]:
        """Draw the start and end of the crop along a side of the image."""
        length = max(1, round(side * self.py_random.uniform(self.least, 1)))
        start = self.py_random.randint(0, side - length)
        return start, start + length

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """Return the names of the constructor arguments, which albumentations prints."""
        return ("least",)
