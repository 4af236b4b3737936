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
    """A random part of the image, resized to one size (1409.4842 section 6); defaults are the field's for ImageNet."""

    name: Literal["random_crop"] = "random_crop"
    size: int = Field(default=224, gt=0)
    """Pixels of each side."""
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Least and greatest part, as a share of the image's area."""
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Least and greatest width over height of the part."""
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
        """That of the crop."""
        return self.size


@TRANSFORMS.register("random_crop", RandomCropConfig)
def build_random_crop(seed: int, config: RandomCropConfig) -> Transform:
    """A random part resized to one size, a flip, and if wanted other colours."""
    steps = [
        RandomResizedCrop((config.size, config.size), config.scale, config.ratio, area_for_downscale="image"),
        A.HorizontalFlip(p=config.flip),
        *config.color_jitter.steps(),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class CenterCropConfig(TransformConfig):
    """The middle of the image; defaults are the field's for ImageNet at evaluation."""

    name: Literal["center_crop"] = "center_crop"
    resize: int = Field(default=256, gt=0)
    """Pixels that the short side gets before."""
    size: int = Field(default=224, gt=0)
    """Pixels of each side of what is cut out."""

    @model_validator(mode="after")
    def _check_sizes(self) -> "CenterCropConfig":
        if self.size > self.resize:
            raise ValueError(f"a crop of {self.size} does not fit a short side of {self.resize}: raise resize")
        return self

    def output_short_side(self) -> int:
        """Before the middle is cut out."""
        return self.resize


@TRANSFORMS.register("center_crop", CenterCropConfig)
def build_center_crop(seed: int, config: CenterCropConfig) -> Transform:
    """Short side to one length, then a square from the middle."""
    steps = [
        SmallestMaxSize(config.resize, area_for_downscale="image"),
        A.CenterCrop(config.size, config.size),
    ]
    return Transform(seed, steps, config.boxes_from_masks)


class RandomResizedCrop(A.RandomResizedCrop):
    """Albumentations' own, with exact keypoints."""

    def apply_to_keypoints(self, keypoints: ndarray, crop_coords: tuple[int, int, int, int], **params: Any) -> ndarray:
        """In the crop, then with the crop resized."""
        left, top, right, bottom = crop_coords
        cut = keypoints.copy()
        cut[:, :2] -= (left, top)
        return resize_points(cut, (bottom - top, right - left), self.size)


class SmallestMaxSize(A.SmallestMaxSize):
    """Albumentations' own, with exact keypoints."""

    def apply_to_keypoints(self, keypoints: ndarray, scale: float, **params: Any) -> ndarray:
        """By the sizes before and after, which is rounded as in ``apply``."""
        before = params["shape"][:2]
        return resize_points(keypoints, before, [max(1, round(side * scale)) for side in before])
