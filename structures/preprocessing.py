"""Configs of the preprocessing of images for evaluation and inference.

:func:`vertebra.inference.preprocess_image` applies it.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from .config import Config


class ShortSideResize(Config):
    """Resize to the given length of the short side, or less if the long side would exceed its limit."""

    name: Literal["short_side_resize"] = "short_side_resize"
    short_side: PositiveInt
    """Length of the short side in pixels."""
    long_side: PositiveInt
    """Maximum length of the long side in pixels."""


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


ImagePreprocessing = Annotated[ShortSideResize | ResizedCenterCrop, Field(discriminator="name")]
