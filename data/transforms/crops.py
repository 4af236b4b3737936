"""Crops of one size, as classifiers are trained and evaluated. What shrinks is averaged over areas, not sampled."""

from typing import Annotated, Any, Literal

import albumentations as A
from numpy import ndarray
from pydantic import Field, model_validator

from .base import TRANSFORMS, Transform, TransformConfig
from .color import ColorJitterConfig
from .resize import resize_points

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class RandomCropConfig(TransformConfig):
    """A random part of the image, resized to one size (1409.4842 section 6); defaults are ImageNet's usual ones."""

    name: Literal["random_crop"] = "random_crop"
    size: int = Field(default=224, gt=0)
    """Pixels of each side."""
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """The least and the greatest area of the part, as a fraction of the image's."""
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """The least and the greatest width over height of the part."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    color_jitter: ColorJitterConfig = ColorJitterConfig()

    @model_validator(mode="after")
    def _check_ranges(self) -> "RandomCropConfig":
        for field, (least, greatest) in (("scale", self.scale), ("ratio", self.ratio)):
            if least > greatest:
                raise ValueError(f"{field} goes from the least to the greatest; got {(least, greatest)}")
        return self

    def output_short_side(self) -> int:
        """Return the side of the crop."""
        return self.size


@TRANSFORMS.register("random_crop", RandomCropConfig)
def build_random_crop(seed: int, config: RandomCropConfig) -> Transform:
    """Build a random crop that is resized to one size, a flip, and colour jitter if the config has it."""
    steps = [
        RandomResizedCrop((config.size, config.size), config.scale, config.ratio, area_for_downscale="image"),
        A.HorizontalFlip(p=config.flip),
        *config.color_jitter.steps(),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class CenterCropConfig(TransformConfig):
    """The middle of the image; defaults are ImageNet's usual ones at evaluation."""

    name: Literal["center_crop"] = "center_crop"
    resize: int = Field(default=256, gt=0)
    """Pixels of the short side, to which the image is resized first."""
    size: int = Field(default=224, gt=0)
    """Pixels of each side of the square that is cut out."""

    @model_validator(mode="after")
    def _check_sizes(self) -> "CenterCropConfig":
        if self.size > self.resize:
            raise ValueError(f"a crop of {self.size} does not fit a short side of {self.resize}: raise resize")
        return self

    def output_short_side(self) -> int:
        """Return the short side before the middle is cut out."""
        return self.resize


@TRANSFORMS.register("center_crop", CenterCropConfig)
def build_center_crop(seed: int, config: CenterCropConfig) -> Transform:
    """Build a resize of the short side to one length, and a crop of a square from the middle."""
    steps = [
        SmallestMaxSize(config.resize, area_for_downscale="image"),
        A.CenterCrop(config.size, config.size),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class RandomResizedCrop(A.RandomResizedCrop):
    """Albumentations' random crop, with exact keypoints."""

    def apply_to_keypoints(self, keypoints: ndarray, crop_coords: tuple[int, int, int, int], **params: Any) -> ndarray:
        """Return the points in the crop, after it was resized."""
        left, top, right, bottom = crop_coords
        cut = keypoints.copy()
        cut[:, :2] -= (left, top)
        return resize_points(cut, (bottom - top, right - left), self.size)


class SmallestMaxSize(A.SmallestMaxSize):
    """Albumentations' resize of the short side, with exact keypoints."""

    def apply_to_keypoints(self, keypoints: ndarray, scale: float, **params: Any) -> ndarray:
        """Return the points in the resized image, whose size is rounded as in ``apply``."""
        before = params["shape"][:2]
        return resize_points(keypoints, before, [max(1, round(side * scale)) for side in before])
