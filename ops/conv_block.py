"""A convolution with the norm and the activation that follow it."""

from typing import Literal

from torch import nn

from .norms import NormLayer

ActivationKind = Literal["none", "relu", "silu", "gelu"]
"""``none``: no activation; ``relu``: ReLU; ``silu``: SiLU, called swish in EfficientDet (1710.05941); ``gelu``: GELU
(1606.08415)."""


def activation_layer(name: ActivationKind) -> nn.Module:
    """Return a new activation layer; ``none`` gives an identity."""
    return {"none": nn.Identity, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}[name]()


def conv_block(
    in_channels: int,
    channels: int,
    kernel: int,
    norm: NormLayer = nn.Identity,
    activation: ActivationKind = "none",
    *,
    stride: int = 1,
    dilation: int = 1,
    bias: bool | None = None,
) -> nn.Module:
    """Build a convolution, a norm and an activation.

    ``bias`` None gives the convolution a bias only if there is no norm. The result is an ``nn.Sequential``, or the bare
    convolution if there is neither norm nor activation. The padding keeps the size of the map at stride 1 for an odd
    ``kernel``.
    """
    bias = norm is nn.Identity if bias is None else bias
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=bias)
    layers = [convolution, norm(channels), activation_layer(activation)]
    layers = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    return nn.Sequential(*layers) if len(layers) > 1 else convolution


def separable_conv_block(
    in_channels: int,
    channels: int,
    norm: NormLayer,
    activation: ActivationKind,
    *,
    dilation: int = 1,
    depthwise_norm: bool = True,
) -> nn.Module:
    """Build a depthwise 3x3 and a pointwise 1x1 convolution, each followed by norm and activation.

    This is the atrous separable convolution of 1802.02611 section 3.1. Without ``depthwise_norm``, nothing follows the
    depthwise convolution.
    """
    depthwise = nn.Conv2d(
        in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=norm is nn.Identity
    )
    pointwise_block = conv_block(in_channels, channels, 1, norm, activation)
    if not depthwise_norm:
        return nn.Sequential(depthwise, pointwise_block)
    return nn.Sequential(nn.Sequential(depthwise, norm(in_channels), activation_layer(activation)), pointwise_block)
