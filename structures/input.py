"""How a network wants its pixels."""

from typing import Literal

from pydantic import model_validator

from .config import Config


class InputConfig(Config):
    """The normalisation that weights were trained with; it travels with them.

    ``mean`` and ``std`` are in the unit of ``scale`` (1 for 0..1, 255 for 0..255) and in the order of ``channels``.
    The defaults are ImageNet's, as torchvision and timm train.
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
        """Return ImageNet's values for three channels, and their average for every channel of any other number."""
        return cls() if count == 3 else cls(mean=(0.449,) * count, std=(0.226,) * count)


CAFFE_INPUT = InputConfig(mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), scale=255, channels="bgr")
"""Caffe's convention, with the mean that most of its weights want; detectron2's want 103.53, 116.28, 123.675."""
