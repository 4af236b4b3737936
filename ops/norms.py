"""Normalization layers, by the name that a config has for them."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn

from .sync_norm import SyncBatchNorm

NormKind = Literal["batch", "frozen", "sync", "group", "layer", "none"]
"""``batch``: batch norm; ``frozen``: with fixed statistics and weights; ``sync``: with statistics of all processes;
``group``: group norm (1803.08494); ``layer``: layer norm over the channels of each cell; ``none``: no norm."""

NormLayer = Callable[[int], nn.Module]
"""Channels -> a layer that normalizes them."""

GROUPS = 32  # 1803.08494 section 4.1


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """Batch norm whose statistics and affine weights are buffers: the same map in training and evaluation.

    State dicts are those of the base class: they come from, and go into, ``BatchNorm2d`` strictly. The arithmetic is
    one multiply-add that saves no activation for the backward pass, in the type of its input; the base class takes two
    passes, and under autocast turns every activation into float32. Casting the scale is detectron2's convention.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = (channels.to(x.dtype)[:, None, None] for channels in (scale, shift))
        return torch.addcmul(shift, x, scale)


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell of a feature map (2201.03545)."""

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """Return a group norm of 32 groups, or of as many (a power of two) as divide the channels."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels, eps=eps)


def norm_layer(name: NormKind, eps: float = 1e-5) -> NormLayer:
    """Return what makes norms of this name for a number of channels; ``eps`` is added to the variance."""
    if name == "none":
        return nn.Identity
    makers = {
        "batch": nn.BatchNorm2d,
        "frozen": FrozenBatchNorm2d,
        "sync": SyncBatchNorm,
        "group": group_norm,
        "layer": ChannelLayerNorm,
    }
    return partial(makers[name], eps=eps)
