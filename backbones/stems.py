"""The first convolutions of a residual network: pixels -> half the resolution."""

from itertools import pairwise

from torch import nn

from ..ops import NormLayer


def stem_convolution(channels: tuple[int, ...], norm: NormLayer) -> nn.Conv2d | nn.Sequential:
    """One 7x7 convolution (1512.03385), or several 3x3 (1812.01187 section 4.2) with all but the last normalised.

    ``channels`` are the output channels of each. Indices within are timm's, so that its weights load.
    """
    if len(channels) == 1:
        return nn.Conv2d(3, channels[0], 7, stride=2, padding=3, bias=False)
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 3, stride=2, padding=1, bias=False)]
    for before, after in pairwise(channels):
        layers += [norm(before), nn.ReLU(inplace=True), nn.Conv2d(before, after, 3, padding=1, bias=False)]
    return nn.Sequential(*layers)
