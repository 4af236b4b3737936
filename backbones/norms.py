"""The normalisation layers of a backbone."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn

NormLayer = Callable[[int], nn.Module]
"""Channels -> a layer that normalises them."""


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """Batch norm whose statistics and affine weights are buffers: the same map in training and evaluation.

    State dicts are those of the base class: they come from, and go into, ``BatchNorm2d`` strictly. The arithmetic is
    one multiply-add that saves no activation for the backward pass, in the type of its input; the base class takes
    two passes, and under autocast turns every activation into float32. Casting the scale is detectron2's convention.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = (column.to(x.dtype)[:, None, None] for column in (scale, shift))
        return torch.addcmul(shift, x, scale)


def norm_layer(kind: Literal["batch", "frozen"], eps: float) -> NormLayer:
    """The maker of layers of one kind; ``eps`` is added to the variance."""
    return partial({"batch": nn.BatchNorm2d, "frozen": FrozenBatchNorm2d}[kind], eps=eps)
