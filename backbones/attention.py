"""Channel attention for residual blocks, applied to the output of the last convolution."""

import math

from jaxtyping import Float
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (1709.01507 section 3): scale each channel by a gate computed from all channel means.

    As in timm, the hidden layer has 1/16 of the channels but at least 8, and parameters have timm's names.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 16)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.fc2(self.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class EfficientChannelAttention(nn.Module):
    """Efficient channel attention (1910.03151 section 3.2): gates from a 1-D convolution over the channel means.

    The kernel size follows from the number of channels (Eq. 12).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int((math.log2(channels) + 1) / 2)
        size = max(3, size if size % 2 else size + 1)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        gates = self.conv(x.mean((2, 3))[:, None]).sigmoid()
        return x * gates.transpose(1, 2)[..., None]


ATTENTIONS = {"none": nn.Identity, "se": SqueezeExcite, "eca": EfficientChannelAttention}
