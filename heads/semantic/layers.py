"""Layers of semantic heads."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...ops import NormLayer, conv_block, separable_conv_block
from ..class_rows import ClassRows


class PixelClassifier(nn.Module):
    """The FCN head: 3x3 convolutions to a quarter of the channels, dropout, and a 1x1 convolution to logits.

    torchvision has one 3x3 convolution. ``further`` ones follow it and, with ``concatenate``, another one that reads
    their output and the input.
    """

    class_rows: ClassVar = {"logits": ClassRows()}

    def __init__(
        self,
        channels: int,
        num_classes: int,
        norm: NormLayer,
        dropout: float,
        further: int = 0,
        concatenate: bool = False,
    ) -> None:
        super().__init__()
        hidden = channels // 4
        self.convolution = spatial_block(channels, hidden, norm)
        self.further = nn.Sequential(*(spatial_block(hidden, hidden, norm) for _ in range(further)))
        self.merge = spatial_block(channels + hidden, hidden, norm) if concatenate else None
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, level: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Compute the logits of each cell."""
        hidden = self.further(self.convolution(level))
        if self.merge is not None:
            hidden = self.merge(torch.cat([level, hidden], dim=1))
        return self.logits(self.dropout(hidden))


def spatial_block(
    in_channels: int,
    channels: int,
    norm: NormLayer,
    *,
    dilation: int = 1,
    separable: bool = False,
    depthwise_norm: bool = True,
) -> nn.Module:
    """Build a 3x3 convolution with norm and ReLU, which is depthwise separable if ``separable`` is set.

    ``depthwise_norm`` puts a norm and a ReLU after the depthwise convolution too.
    """
    if separable:
        return separable_conv_block(
            in_channels, channels, norm, "relu", dilation=dilation, depthwise_norm=depthwise_norm
        )
    return conv_block(in_channels, channels, 3, norm, "relu", dilation=dilation)


def initialize(head: nn.Module) -> None:
    """Initialize convolutions with He normal initialization by fan-in (1502.01852), and biases with zero.

    Modules named ``logits`` get small weights, so that all classes start with about equal probability.
    """
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.endswith("logits"):
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
