"""Atrous spatial pyramid pooling: a level at several dilation rates, and its mean (1706.05587 section 3.3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ...ops import NormLayer, SyncBatchNorm, conv_block, get_world_size, masked_mean
from ...structures import FeatureInfo
from .layers import spatial_block


class ImagePooling(nn.Module):
    """Puts the mean over each image, its padding left out, at every cell.

    Batch norm has one value per image and channel here. In a training step of one image that is a single value, which
    its own statistics would turn into zero (torch refuses it): the running statistics normalize it, and stay as they
    are.
    """

    def __init__(self, info: FeatureInfo, channels: int, norm: NormLayer) -> None:
        super().__init__()
        self.stride = info.stride
        self.norm = norm(channels)
        self.convolution = nn.Conv2d(info.channels, channels, 1, bias=isinstance(self.norm, nn.Identity))

    def forward(self, level: Float[Tensor, "b c h w"], sizes: Int64[Tensor, "b 2"]) -> Float[Tensor, "b d h w"]:
        """Return the mean of each image, whose ``sizes`` are (height, width) in pixels, at every cell."""
        pooled = masked_mean(level, sizes, self.stride)[:, :, None, None]
        hidden = F.relu(self._normalize(self.convolution(pooled)))
        return hidden.expand(-1, -1, *level.shape[-2:])

    def _normalize(self, pooled: Float[Tensor, "b d 1 1"]) -> Float[Tensor, "b d 1 1"]:
        norm = self.norm
        if len(pooled) > 1 or not isinstance(norm, nn.BatchNorm2d | SyncBatchNorm):
            return norm(pooled)
        if isinstance(norm, SyncBatchNorm) and get_world_size() > 1:
            return norm(pooled)  # other processes have more values, and wait for those of this one
        return F.batch_norm(pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


class ASPP(nn.Module):
    """A 1x1 convolution, a 3x3 at each rate and the image's mean, concatenated and projected."""

    def __init__(
        self, info: FeatureInfo, rates: Sequence[int], channels: int, norm: NormLayer, separable: bool, dropout: float
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_block(info.channels, channels, 1, norm, "relu")])
        self.branches += [
            spatial_block(info.channels, channels, norm, dilation=rate, separable=separable) for rate in rates
        ]
        self.pooling = ImagePooling(info, channels, norm)
        self.project = conv_block((len(rates) + 2) * channels, channels, 1, norm, "relu")
        self.dropout = nn.Dropout(dropout)

    def forward(self, level: Float[Tensor, "b c h w"], sizes: Int64[Tensor, "b 2"]) -> Float[Tensor, "b d h w"]:
        """Compute the features of a level; ``sizes`` are the images' (height, width) in pixels."""
        views = [branch(level) for branch in self.branches]
        return self.dropout(self.project(torch.cat([*views, self.pooling(level, sizes)], dim=1)))
