"""Configs of the preprocessing of images for evaluation and inference.

:func:`vertebra.inference.preprocess_image` applies it.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from .config import Config

Rounding = Literal["nearest", "floor"]
"""A rule for rounding the sides of a resized image to whole pixels."""


class ShortSideResize(Config):
    """Resize to the given length of the short side, or less if the long side would exceed its limit."""

    name: Literal["short_side_resize"] = "short_side_resize"
    short_side: PositiveInt
    """Length of the short side in pixels."""
    long_side: PositiveInt
    """Maximum length of the long side in pixels."""
    rounding: Rounding = "nearest"
    """How the sides of the resized image are rounded to whole pixels: ``nearest`` as in detectron2, ``floor`` as in
    torchvision."""

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) to which an image of this size is resized; at least one pixel."""
        scale = min(self.short_side / min(height, width), self.long_side / max(height, width))
        if self.rounding == "nearest":
            return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        return max(1, int(height * scale)), max(1, int(width * scale))


class ResizedCenterCrop(Config):
    """Resize to the given length of the short side, then crop a square from the center."""

    name: Literal["resized_center_crop"] = "resized_center_crop"
    short_side: PositiveInt
    """Length of the short side in pixels before the crop."""
    size: PositiveInt
    """Side of the cropped square in pixels."""

    @model_validator(mode="after")
    def _check_sizes(self) -> "ResizedCenterCrop":
        if self.size > self.short_side:
            raise ValueError(f"a crop of {self.size} px does not fit into a short side of {self.short_side} px")
        return self


class KeepSize(Config):
    """No change of the image, for models that resize photos themselves, as exported files can."""

    name: Literal["keep_size"] = "keep_size"

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the image."""
        return height, width


ImagePreprocessing = Annotated[ShortSideResize | ResizedCenterCrop | KeepSize, Field(discriminator="name")]
