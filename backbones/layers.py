"""The convolutions and norms of residual networks."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from ..ops import norm_layer


class DeformableConv2d(nn.Conv2d):
    """A modulated deformable 3x3 convolution (DCNv2, 1811.11168 section 3.2).

    It has the weights of an ordinary 3x3 convolution; the convolution ``offset`` predicts its sampling points and a
    modulation weight for each. The weights of ``offset`` start at zero: all points on the regular grid, with a
    modulation of 0.5, as in the paper.
    """

    def __init__(self, channels: int, stride: int = 1, dilation: int = 1, groups: int = 1, bias: bool = False) -> None:
        super().__init__(channels, channels, 3, stride, dilation, dilation, groups, bias)
        # For each of the 9 sampling points: y offset, x offset, modulation.
        self.offset = nn.Conv2d(channels, 3 * 9, 3, stride, dilation, dilation)

    def forward(self, input: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        offsets, weights = self.offset(input).split((2 * 9, 9), dim=1)
        return deform_conv2d(
            input,
            offsets,
            self.weight,
            self.bias,
            stride=self.stride,  # pyright: ignore[reportArgumentType]  # Conv2d's own annotation is looser
            padding=self.padding,  # pyright: ignore[reportArgumentType]
            dilation=self.dilation,  # pyright: ignore[reportArgumentType]
            mask=weights.sigmoid(),
        )


@dataclass(frozen=True, slots=True)
class Layers:
    """Factory of the layers of one stage: all use the same norm, and 3x3 convolutions are deformable or not."""

    norm_kind: Literal["batch", "frozen", "sync", "group", "none"]
    norm_eps: float
    deformable: bool = False

    def norm(self, channels: int) -> nn.Module:
        """Build the norm that follows a convolution."""
        return norm_layer(self.norm_kind, self.norm_eps)(channels)

    def convolution(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> nn.Conv2d:
        """Build a convolution that keeps the size at stride 1; it has a bias only if no norm follows."""
        padding = dilation * (kernel // 2)
        return nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=self.norm_kind == "none"
        )

    def spatial_convolution(self, channels: int, stride: int, dilation: int, groups: int = 1) -> nn.Conv2d:
        """Build the 3x3 convolution of a block that is deformable if the stage is."""
        if self.deformable:
            return DeformableConv2d(channels, stride, dilation, groups, bias=self.norm_kind == "none")
        return self.convolution(channels, channels, 3, stride, dilation, groups)


def initialize(network: nn.Module) -> None:
    """Initialize convolutions with He normal initialization by fan-out (1502.01852), as torchvision; biases are 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, DeformableConv2d):
            nn.init.zeros_(module.offset.weight)
