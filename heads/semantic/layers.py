"""What the semantic heads are made of."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...ops import NormLayer, conv_block, separable_conv_block
from ...structures import FeatureInfo
from ..class_rows import ClassRows


class PixelClassifier(nn.Module):
    """A 3x3 convolution to a quarter of the channels, dropout, a logit per class (FCN as torchvision builds it)."""

    class_rows: ClassVar = {"logits": ClassRows()}

    def __init__(self, channels: int, num_classes: int, norm: NormLayer, dropout: float) -> None:
        super().__init__()
        self.convolution = spatial_block(channels, channels // 4, norm)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Conv2d(channels // 4, num_classes, 1)

    def forward(self, level: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """The logits of each cell."""
        return self.logits(self.dropout(self.convolution(level)))


def spatial_block(
    in_channels: int, channels: int, norm: NormLayer, *, dilation: int = 1, separable: bool = False
) -> nn.Module:
    """A 3x3 convolution with norm and ReLU, whole or depthwise separable."""
    if separable:
        return separable_conv_block(in_channels, channels, norm, "relu", dilation=dilation)
    return conv_block(in_channels, channels, 3, norm, "relu", dilation=dilation)


def resize(maps: Float[Tensor, "b c _ _"], size: Sequence[int]) -> Float[Tensor, "b c h w"]:
    """Bilinearly to a (height, width); a cell's value stands at its centre (``align_corners`` is off)."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def initialize(head: nn.Module) -> None:
    """He's normal initialisation by fan-in (1502.01852); ``logits`` start near zero, so that no class is likelier."""
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.endswith("logits"):
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def require_levels(reader: str, feature_info: Mapping[str, FeatureInfo], levels: Sequence[str]) -> None:
    """ValueError where the pyramid lacks one of the levels that a head reads."""
    missing = [level for level in levels if level not in feature_info]
    if not missing:
        return
    fix = "name levels that it has in the head's config, or let the backbone give more"
    if any(level.startswith("p") for level in missing):
        fix = "put a neck before the head that makes them, such as 'fpn'"
    raise ValueError(f"{reader} reads levels {tuple(levels)}; the pyramid has {tuple(feature_info)}: {fix}")
