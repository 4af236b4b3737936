"""What carries a block's input past its convolutions."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .layers import Layers


def projection(in_channels: int, out_channels: int, stride: int, layers: Layers) -> nn.Sequential:
    """1512.03385 option B: a strided 1x1 convolution."""
    return nn.Sequential(layers.convolution(in_channels, out_channels, 1, stride), layers.norm(out_channels))


def average_projection(
    in_channels: int, out_channels: int, stride: int, dilation: int, layers: Layers
) -> nn.Sequential:
    """ResNet-D (1812.01187 Figure 2c): a 2x2 mean before a 1x1 convolution, so that no input is left out.

    Under dilation the mean keeps the size and counts zeros past the edge; the cases and the padding are timm's.
    """
    if stride > 1:
        pool = nn.AvgPool2d(2, stride, ceil_mode=True)
    elif dilation > 1:
        pool = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, stride=1))
    else:
        pool = nn.Identity()
    return nn.Sequential(pool, layers.convolution(in_channels, out_channels, 1), layers.norm(out_channels))


class PaddedIdentity(nn.Module):
    """1512.03385 option A: every ``stride``-th cell, and zeros for the channels that are new. Nothing is learned."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, out_channels - in_channels

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
