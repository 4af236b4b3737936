"""A convolution with what follows it."""

from typing import Literal

from torch import nn

from .norms import NormLayer

ActivationKind = Literal["none", "relu", "silu", "gelu"]
"""Nothing; ReLU; SiLU, which EfficientDet calls swish (1710.05941); GELU (1606.08415)."""


def activation_layer(kind: ActivationKind) -> nn.Module:
    """The activation of one kind."""
    return {"none": nn.Identity, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}[kind]()


def conv_block(
    in_channels: int,
    channels: int,
    kernel: int,
    norm: NormLayer = nn.Identity,
    activation: ActivationKind = "none",
    *,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Module:
    """A convolution and what follows it; one that nothing follows stands alone. It has a bias where it has no norm."""
    bias = norm is nn.Identity
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=bias)
    layers = [convolution, norm(channels), activation_layer(activation)]
    layers = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    return nn.Sequential(*layers) if len(layers) > 1 else convolution


def separable_conv_block(
    in_channels: int, channels: int, norm: NormLayer, activation: ActivationKind, *, dilation: int = 1
) -> nn.Module:
    """A 3x3 convolution of each channel alone and a 1x1 across them, each with what follows it (1802.02611 3.1)."""
    depthwise = nn.Conv2d(
        in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=norm is nn.Identity
    )
    own = nn.Sequential(depthwise, norm(in_channels), activation_layer(activation))
    return nn.Sequential(own, conv_block(in_channels, channels, 1, norm, activation))
