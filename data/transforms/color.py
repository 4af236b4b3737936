"""Other colours: what light and camera change about an image, and its truth does not know of."""

from typing import Any

import albumentations as A
from pydantic import Field, model_validator

from ...structures import Config


class ColorJitterConfig(Config):
    """How far the colours of an image are changed, in a random order each time; the default leaves them alone.

    SSD's distortion (1512.02325 section 2.2) is about ``brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05`` with
    a probability of 0.5. As a config's value, one number stands for brightness, contrast and saturation alike
    (1312.5402).

    Albumentations computes it on 8 bits, in a twentieth of the time that torchvision v2's functions take. Compared with
    those in floating point, by the same factors, brightness, contrast and saturation come out within one of 255. Hue,
    which OpenCV counts in steps of two degrees, is one off in the mean and a dozen at most, on noise.
    """

    brightness: float = Field(default=0.0, ge=0, le=1)
    """Pixels are multiplied by a factor from 1 - this to 1 + this."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """So is their distance to the image's mean gray."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """So is their distance to their own gray."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Hues are turned by up to this share of the circle, either way."""
    probability: float = Field(default=1.0, ge=0, le=1)
    """Of an image being changed at all."""

    @model_validator(mode="before")
    @classmethod
    def _spread_number(cls, given: Any) -> Any:
        if isinstance(given, int | float) and not isinstance(given, bool):
            return {"brightness": given, "contrast": given, "saturation": given}
        return given

    def steps(self) -> list[A.BasicTransform]:
        """What albumentations has to do for it; nothing where nothing is changed."""
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            return []
        factors = {name: (1 - far, 1 + far) for name, far in self if name in ("brightness", "contrast", "saturation")}
        return [A.ColorJitter(**factors, hue=(-self.hue, self.hue), p=self.probability)]
