"""Crops of a fixed size for training and evaluation of classifiers; images are downscaled with area interpolation."""

from typing import Annotated, Any, Literal

import albumentations as A
from numpy import ndarray
from pydantic import Field, model_validator

from .base import TRANSFORMS, Transform, TransformConfig
from .color import ColorJitterConfig
from .mask_steps import HorizontalFlip
from .resize import resize_points

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class RandomCropConfig(TransformConfig):
    """A random crop, resized to a fixed size (1409.4842 section 6); the defaults are the usual ones for ImageNet."""

    name: Literal["random_crop"] = "random_crop"
    size: int = Field(default=224, gt=0)
    """Side of the resized crop in pixels."""
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Range of the area of the crop, as a fraction of the image's area."""
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Range of the aspect ratio (width over height) of the crop."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    color_jitter: ColorJitterConfig = ColorJitterConfig()

    @model_validator(mode="after")
    def _check_ranges(self) -> "RandomCropConfig":
        for field, (least, greatest) in (("scale", self.scale), ("ratio", self.ratio)):
            if least > greatest:
                raise ValueError(f"{field} must be (minimum, maximum); got {(least, greatest)}")
        return self

    def output_short_side(self) -> int:
        """Return the side of the resized crop in pixels."""
        return self.size


@TRANSFORMS.register("random_crop", RandomCropConfig)
def build_random_crop(seed: int, config: RandomCropConfig) -> Transform:
    """Build the transform: a random crop resized to a fixed size, a flip, and color jitter if the config has it."""
    steps = [
        RandomResizedCrop((config.size, config.size), config.scale, config.ratio, area_for_downscale="image"),
        HorizontalFlip(p=config.flip),
        *config.color_jitter.steps(),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class CenterCropConfig(TransformConfig):
    """A resize and a square crop from the center; the defaults are the usual ones for evaluation on ImageNet."""

    name: Literal["center_crop"] = "center_crop"
    resize: int = Field(default=256, gt=0)
    """Length in pixels to which the short side is resized first."""
    size: int = Field(default=224, gt=0)
    """Side of the square crop in pixels."""

    @model_validator(mode="after")
    def _check_sizes(self) -> "CenterCropConfig":
        if self.size > self.resize:
            raise ValueError(f"a crop of {self.size} does not fit into a short side of {self.resize}: raise resize")
        return self

    def output_short_side(self) -> int:
        """Return the length of the short side before the crop, in pixels."""
        return self.resize


@TRANSFORMS.register("center_crop", CenterCropConfig)
def build_center_crop(seed: int, config: CenterCropConfig) -> Transform:
    """Build the transform: a resize of the short side to a fixed length, and a square crop from the center."""
    steps = [
        SmallestMaxSize(config.resize, area_for_downscale="image"),
        A.CenterCrop(config.size, config.size),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class RandomResizedCrop(A.RandomResizedCrop):
    """Albumentations' RandomResizedCrop, with keypoints scaled by the exact ratio of the sizes."""

    def apply_to_keypoints(self, keypoints: ndarray, crop_coords: tuple[int, int, int, int], **params: Any) -> ndarray:
        """Return the keypoints in the resized crop."""
        left, top, right, bottom = crop_coords
        shifted = keypoints.copy()
        shifted[:, :2] -= (left, top)
        return resize_points(shifted, (bottom - top, right - left), self.size)


class SmallestMaxSize(A.SmallestMaxSize):
    """Albumentations' SmallestMaxSize, with keypoints scaled by the exact ratio of the sizes."""

    def apply_to_keypoints(self, keypoints: ndarray, scale: float, **params: Any) -> ndarray:
        """Return the keypoints in the resized image, whose size is rounded as in ``apply``."""
        before = params["shape"][:2]
        return resize_points(keypoints, before, [max(1, round(side * scale)) for side in before])
