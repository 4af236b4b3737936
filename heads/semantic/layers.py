"""Layers of semantic heads."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from ...ops import NormLayer, conv_block, separable_conv_block
from ..class_rows import ClassRows


class PixelClassifier(nn.Module):
    """torchvision's FCN head: a 3x3 convolution to a quarter of the channels, dropout, a 1x1 convolution to logits."""

    class_rows: ClassVar = {"logits": ClassRows()}

    def __init__(self, channels: int, num_classes: int, norm: NormLayer, dropout: float) -> None:
        super().__init__()
        self.convolution = spatial_block(channels, channels // 4, norm)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Conv2d(channels // 4, num_classes, 1)

    def forward(self, level: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Compute the logits of each cell."""
        return self.logits(self.dropout(self.convolution(level)))


def spatial_block(
    in_channels: int, channels: int, norm: NormLayer, *, dilation: int = 1, separable: bool = False
) -> nn.Module:
    """Build a 3x3 convolution with norm and ReLU, which is depthwise separable if ``separable`` is set."""
    if separable:
        return separable_conv_block(in_channels, channels, norm, "relu", dilation=dilation)
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
