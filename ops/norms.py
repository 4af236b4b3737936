"""Normalization layers by their names in configs."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from jaxtyping import Float
from torch import Tensor, nn

from .distributed import get_world_size
from .sync_norm import SyncBatchNorm

NormKind = Literal["batch", "frozen", "sync", "group", "layer", "none"]
"""``batch``: batch norm; ``frozen``: batch norm with fixed statistics and weights; ``sync``: batch norm with statistics
over all processes; ``group``: group norm (1803.08494); ``layer``: layer norm over the channels of each cell; ``none``:
no norm."""

NormLayer = Callable[[int], nn.Module]
"""A function that builds a norm layer for a number of channels."""

GROUPS = 32  # 1803.08494 section 4.1


class Folded(NamedTuple):
    """The scale and shift of a frozen batch norm, and the buffers that they were computed from."""

    buffers: tuple[Tensor, ...]
    versions: tuple[int, ...]
    scale: Float[Tensor, "c 1 1"]
    shift: Float[Tensor, "c 1 1"]


class FrozenBatchNorm2d(torchvision.ops.FrozenBatchNorm2d):
    """Batch norm with fixed statistics and affine weights, stored as buffers; the same in training and evaluation.

    State dicts are compatible with ``BatchNorm2d`` (``strict=True``). Unlike torchvision's base class, which takes two
    passes and under autocast returns float32, it computes one multiply-add in the dtype of its input and saves no
    activation for the backward pass. Scale and shift are cast to that dtype, as in detectron2.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    _folded: "Folded | None" = None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        scale, shift = self._fold(x.dtype)
        return torch.addcmul(shift, x, scale)

    def _fold(self, dtype: torch.dtype) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
        """Return the scale and the shift, which are computed again only if a buffer or the dtype has changed."""
        buffers = (self.weight, self.bias, self.running_mean, self.running_var)
        # A compiled graph computes them itself. Tensors made in inference mode have no version counter, and a scale
        # computed in that mode cannot be used in training.
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or self.weight.is_inference():
            return self._compute_fold(dtype)
        versions, folded = tuple(buffer._version for buffer in buffers), self._folded
        if (
            folded is None
            or folded.scale.dtype != dtype
            or folded.versions != versions
            or any(before is not buffer for before, buffer in zip(folded.buffers, buffers, strict=True))
        ):
            self._folded = folded = Folded(buffers, versions, *self._compute_fold(dtype))
        return folded.scale, folded.shift

    def _compute_fold(self, dtype: torch.dtype) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return scale.to(dtype)[:, None, None], shift.to(dtype)[:, None, None]


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell of a feature map (2201.03545)."""

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """Return a group norm with 32 groups or, if 32 does not divide the channels, the largest power of two that does."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels, eps=eps)


def norm_layer(name: NormKind, eps: float = 1e-5) -> NormLayer:
    """Return the function that builds norms of this name; ``eps`` is added to the variance."""
    if name == "none":
        return nn.Identity
    builders = {
        "batch": nn.BatchNorm2d,
        "frozen": FrozenBatchNorm2d,
        "sync": SyncBatchNorm,
        "group": group_norm,
        "layer": ChannelLayerNorm,
    }
    return partial(builders[name], eps=eps)


def normalize_vectors(vectors: Float[Tensor, "b d 1 1"], norm: nn.Module) -> Float[Tensor, "b d 1 1"]:
    """Apply a norm layer to one vector per image, such as the mean of a feature map.

    The batch statistics of a single vector are undefined (torch raises an error), so batch norm then uses its running
    statistics and does not update them.
    """
    if len(vectors) > 1 or not isinstance(norm, nn.BatchNorm2d | SyncBatchNorm):
        return norm(vectors)
    if isinstance(norm, SyncBatchNorm) and get_world_size() > 1:
        return norm(vectors)  # the statistics include other processes, which wait for this one
    return F.batch_norm(vectors, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
