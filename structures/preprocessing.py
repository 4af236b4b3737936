"""What happens to a photo between its file and the model when a model is evaluated or used, as plain values.

:func:`vertebra.inference.preprocess_image` carries it out.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from .config import Config


class ShortSideResize(Config):
    """Resize the image so that its short side has one length, or its long side the limit if that makes it smaller."""

    name: Literal["short_side_resize"] = "short_side_resize"
    short_side: PositiveInt
    """Pixels of the short side."""
    long_side: PositiveInt
    """The most pixels of the long side."""


class ResizedCenterCrop(Config):
    """Resize the image so that its short side has one length, and cut a square out of the middle."""

    name: Literal["resized_center_crop"] = "resized_center_crop"
    short_side: PositiveInt
    """Pixels of the short side before the cut."""
    size: PositiveInt
    """Pixels of each side of the square."""

    @model_validator(mode="after")
    def _check_sizes(self) -> "ResizedCenterCrop":
        if self.size > self.short_side:
            raise ValueError(f"a crop of {self.size} px does not fit a short side of {self.short_side} px")
        return self


ImagePreprocessing = Annotated[ShortSideResize | ResizedCenterCrop, Field(discriminator="name")]
