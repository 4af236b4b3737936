"""Layers that several necks share."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..ops import ActivationKind, NormLayer, conv_block
from ..structures import FeatureInfo


def lateral_blocks(
    feature_info: Mapping[str, FeatureInfo],
    levels: Sequence[str],
    channels: int,
    norm: NormLayer,
    activation: ActivationKind = "none",
) -> nn.ModuleDict:
    """Build a lateral 1x1 convolution to ``channels`` channels for each of ``levels``."""
    return nn.ModuleDict(
        {level: conv_block(feature_info[level].channels, channels, 1, norm, activation) for level in levels}
    )


def upsample_to(coarse: Float[Tensor, "b c _ _"], fine: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Resize a map to the size of a finer map by nearest-neighbor interpolation, as torchvision does."""
    return F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")


def halve(fine: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b c _ _"]:
    """Reduce a map to ceil(size / 2) by 3x3 max pooling, with the "SAME" padding of EfficientDet's TensorFlow code."""
    height, width = fine.shape[-2:]
    return F.max_pool2d(fine, 3, stride=2, padding=(height % 2, width % 2), ceil_mode=True)


def initialize(network: nn.Module) -> None:
    """Initialize convolutions uniformly by fan-in (Caffe2's XavierFill), and biases with zero.

    torchvision's and detectron2's FPN do the same.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
