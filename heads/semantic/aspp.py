"""Atrous spatial pyramid pooling, ASPP (1706.05587 section 3.3)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ...ops import NormLayer, conv_block, masked_mean, normalize_vectors
from ...structures import FeatureInfo


class ImagePooling(nn.Module):
    """Image-level features: the mean over each image without its padding, projected and copied to every cell.

    Batch norm sees one value per image and channel here; see :func:`vertebra.ops.normalize_vectors`.
    """

    def __init__(self, info: FeatureInfo, channels: int, norm: NormLayer) -> None:
        super().__init__()
        self.stride = info.stride
        self.norm = norm(channels)
        self.convolution = nn.Conv2d(info.channels, channels, 1, bias=isinstance(self.norm, nn.Identity))

    def forward(self, level: Float[Tensor, "b c h w"], sizes: Int64[Tensor, "b 2"]) -> Float[Tensor, "b d h w"]:
        """Compute the image-level features at every cell; ``sizes`` holds the images' (height, width) in pixels."""
        pooled = masked_mean(level, sizes, self.stride)[:, :, None, None]
        hidden = F.relu(normalize_vectors(self.convolution(pooled), self.norm))
        return hidden.expand(-1, -1, *level.shape[-2:])


class ASPP(nn.Module):
    """ASPP: a 1x1 convolution, a dilated 3x3 for each rate and image pooling, concatenated and projected."""

    def __init__(
        self,
        info: FeatureInfo,
        rates: Sequence[int],
        channels: int,
        norm: NormLayer,
        block: Callable[..., nn.Module],
        kernel: int,
    ) -> None:
        """Build the ASPP.

        ``block(in_channels, channels, norm, dilation=...)`` builds a dilated convolution; ``kernel`` is the kernel size
        of the convolution after the concatenation.
        """
        super().__init__()
        self.branches = nn.ModuleList([conv_block(info.channels, channels, 1, norm, "relu")])
        self.branches += [block(info.channels, channels, norm, dilation=rate) for rate in rates]
        self.pooling = ImagePooling(info, channels, norm)
        self.project = conv_block((len(rates) + 2) * channels, channels, kernel, norm, "relu")

    def forward(self, level: Float[Tensor, "b c h w"], sizes: Int64[Tensor, "b 2"]) -> Float[Tensor, "b d h w"]:
        """Compute the features of a level; ``sizes`` holds the images' (height, width) in pixels."""
        outputs = [branch(level) for branch in self.branches]
        return self.project(torch.cat([*outputs, self.pooling(level, sizes)], dim=1))
