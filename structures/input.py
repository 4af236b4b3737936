"""The pixel normalization that a network expects."""

from typing import Literal

from pydantic import model_validator

from .config import Config


class InputConfig(Config):
    """The pixel normalization that weights were trained with; it is stored with them.

    ``mean`` and ``std`` are in the unit of ``scale`` (1: pixels 0..1, 255: pixels 0..255) and in the order of
    ``channels``. The defaults are the ImageNet values that torchvision and timm train with.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scale: Literal[1, 255] = 1
    channels: Literal["rgb", "bgr"] = "rgb"

    @model_validator(mode="after")
    def _check(self) -> "InputConfig":
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean and std need one value per channel; got {self.mean} and {self.std}")
        return self

    @classmethod
    def for_channels(cls, count: int) -> "InputConfig":
        """Return ImageNet's values for three channels; for any other number, their average in every channel."""
        return cls() if count == 3 else cls(mean=(0.449,) * count, std=(0.226,) * count)


CAFFE_INPUT = InputConfig(mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), scale=255, channels="bgr")
"""Caffe's BGR convention, with the mean of most Caffe weights."""

DETECTRON2_INPUT = CAFFE_INPUT.replace(mean=(103.53, 116.28, 123.675))
"""detectron2's pixels: BGR without division by a standard deviation, as MSRA's ResNets expect."""
DETECTRON2_INPUT_WITH_STD = DETECTRON2_INPUT.replace(std=(57.375, 57.12, 58.395))
"""detectron2's pixels for ResNeXts, and for some models that were trained from scratch."""
