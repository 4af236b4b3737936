"""Colour jitter: changes of an image that leave its ground truth alone."""

from typing import Any

import albumentations as A
from pydantic import Field, model_validator

from ...structures import Config


class ColorJitterConfig(Config):
    """How far the colours of an image are changed, in a random order each time; the default changes nothing.

    SSD's distortion (1512.02325 section 2.2) is about ``brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05`` with
    a probability of 0.5. As a config's value, one number stands for brightness, contrast and saturation alike
    (1312.5402).

    Albumentations computes it on 8 bits, in a twentieth of the time that torchvision v2's functions take. Compared with
    those in floating point, by the same factors, brightness, contrast and saturation come out within one of 255. Hue,
    which OpenCV counts in steps of two degrees, is off by one in the mean and by a dozen at most, on noise.
    """

    brightness: float = Field(default=0.0, ge=0, le=1)
    """Pixels are multiplied by a random factor between 1 - this and 1 + this."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """The distance of pixels to the image's mean gray is multiplied by such a factor."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """The distance of each pixel to its own gray is multiplied by such a factor."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Hues are turned by up to this fraction of the circle, either way."""
    probability: float = Field(default=1.0, ge=0, le=1)
    """Probability that an image is changed at all."""

    @model_validator(mode="before")
    @classmethod
    def _spread_number(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"brightness": value, "contrast": value, "saturation": value}
        return value

    def steps(self) -> list[A.BasicTransform]:
        """Return albumentations' step for it, or no step where nothing is changed."""
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            return []
        step = A.ColorJitter(
            brightness=(1 - self.brightness, 1 + self.brightness),
            contrast=(1 - self.contrast, 1 + self.contrast),
            saturation=(1 - self.saturation, 1 + self.saturation),
            hue=(-self.hue, self.hue),
            p=self.probability,
        )
        return [step]
