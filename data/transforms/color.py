"""Color jitter: random changes of the colors of an image."""

from typing import Any

import albumentations as A
from pydantic import Field, model_validator

from ...structures import Config


class ColorJitterConfig(Config):
    """Strength of the color jitter, whose operations are applied in random order; the defaults change nothing.

    SSD's distortion (1512.02325 section 2.2) is about ``brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05`` with
    a probability of 0.5. In a config, a single number sets brightness, contrast and saturation (1312.5402).

    Albumentations computes it in 8 bits, twenty times as fast as torchvision v2's functions. For the same factors,
    brightness, contrast and saturation differ from torchvision's floating-point results by at most 1 of 255. Hue, which
    OpenCV stores in steps of two degrees, differs by 1 on average and by about 12 at most, measured on noise.
    """

    brightness: float = Field(default=0.0, ge=0, le=1)
    """Pixels are multiplied by a random factor from [1 - brightness, 1 + brightness]."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Differences to the mean gray of the image are multiplied by a random factor from [1 - contrast, 1 + contrast]."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """Differences to the gray value of each pixel are multiplied by a random factor from [1 - saturation, 1 +
    saturation]."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Hues are rotated by a random fraction of the color circle from [-hue, hue]."""
    probability: float = Field(default=1.0, ge=0, le=1)
    """Probability that an image is changed."""

    @model_validator(mode="before")
    @classmethod
    def _spread_number(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"brightness": value, "contrast": value, "saturation": value}
        return value

    def steps(self) -> list[A.BasicTransform]:
        """Return the albumentations step of the config, or an empty list if it changes nothing."""
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
