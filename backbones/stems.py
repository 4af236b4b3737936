"""The first convolutions of a residual network: pixels -> half the resolution, or the same."""

from itertools import pairwise

from torch import nn

from .layers import Layers
from .variants import ResNetSpec


def stem_convolution(in_channels: int, spec: ResNetSpec, layers: Layers) -> nn.Conv2d | nn.Sequential:
    """One 7x7 convolution (1512.03385), several 3x3 (1812.01187 section 4.2) with all but the last normalised, or one
    3x3 that keeps the resolution. Indices within are timm's, so that its weights load.
    """
    first, stride = spec.stem[0], 1 if spec.stem_stride == 1 else 2
    if len(spec.stem) == 1:
        return layers.convolution(in_channels, first, 3 if stride == 1 else 7, stride)
    stem: list[nn.Module] = [layers.convolution(in_channels, first, 3, stride)]
    for before, after in pairwise(spec.stem):
        stem += [layers.norm(before), nn.ReLU(inplace=True), layers.convolution(before, after, 3)]
    return nn.Sequential(*stem)


def stem_pool(spec: ResNetSpec) -> nn.Module:
    """What halves the resolution once more, where there is enough of it."""
    return nn.Identity() if spec.stem_stride == 1 else nn.MaxPool2d(3, stride=2, padding=1)
