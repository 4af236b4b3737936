"""Normalizing pixels as the pretrained weights expect them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..structures import Images, InputConfig


class Preprocess(nn.Module):
    """Normalization of uint8 images (0..255, RGB) on the model's device.

    Padding is set to zero after normalization, as in torchvision's detectors.
    """

    def __init__(self, config: InputConfig = InputConfig()) -> None:
        super().__init__()
        self.config = config
        unit = 255 / config.scale
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None] * unit, persistent=False)
        self.register_buffer("std", torch.tensor(config.std)[:, None, None] * unit, persistent=False)

    def forward(self, images: Images) -> Float[Tensor, "b c h w"]:
        """Compute the normalized pixels."""
        channels = len(self.config.mean)
        if images.pixels.shape[1] != channels:
            raise ValueError(f"this model needs images with {channels} channels, got {images.pixels.shape[1]}")
        pixels = images.pixels.flip(1) if self.config.channels == "bgr" else images.pixels
        if pixels.device.type == "cpu" and not torch.is_grad_enabled():
            # Convolutions keep this layout, in which a CPU predicts faster. In training it gains little.
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        normalized = (pixels.to(self.get_buffer("mean").dtype) - self.get_buffer("mean")) / self.get_buffer("std")
        height, width = pixels.shape[-2:]
        rows = torch.arange(height, device=pixels.device) < images.sizes[:, :1]
        columns = torch.arange(width, device=pixels.device) < images.sizes[:, 1:]
        return normalized * (rows[:, None, :, None] & columns[:, None, None, :])
