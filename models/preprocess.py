"""Pixels 0..255 -> what a checkpoint was trained on."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..structures import Config, Images


class InputConfig(Config):
    """How the weights want their pixels; it belongs to a checkpoint and travels with it.

    ``mean`` and ``std`` are in the unit of ``scale`` (1 for 0..1, 255 for 0..255) and in the order of ``channels``.
    The defaults are ImageNet's, as torchvision and timm train.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scale: Literal[1, 255] = 1
    channels: Literal["rgb", "bgr"] = "rgb"


class Preprocess(nn.Module):
    """Normalise on the model's device; padding is zero after normalisation, as torchvision's detectors have it."""

    def __init__(self, config: InputConfig = InputConfig()) -> None:
        super().__init__()
        if len(config.mean) != len(config.std):
            raise ValueError(f"mean and std need one value per channel; got {config.mean} and {config.std}")
        self.config = config
        unit = 255 / config.scale
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None] * unit, persistent=False)
        self.register_buffer("std", torch.tensor(config.std)[:, None, None] * unit, persistent=False)

    def forward(self, images: Images) -> Float[Tensor, "b c h w"]:
        """Normalised pixels."""
        channels = len(self.config.mean)
        if images.pixels.shape[1] != channels:
            raise ValueError(f"this model takes images of {channels} channels, got {images.pixels.shape[1]}")
        pixels = images.pixels.flip(1) if self.config.channels == "bgr" else images.pixels
        normalized = (pixels.to(self.get_buffer("mean").dtype) - self.get_buffer("mean")) / self.get_buffer("std")
        height, width = pixels.shape[-2:]
        rows = torch.arange(height, device=pixels.device) < images.sizes[:, :1]
        columns = torch.arange(width, device=pixels.device) < images.sizes[:, 1:]
        return normalized * (rows[:, None, :, None] & columns[:, None, None, :])
