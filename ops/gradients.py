"""Functions that change gradients and leave values as they are."""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor


def scale_gradient(tensor: Shaped[Tensor, "*d"], scale: float) -> Shaped[Tensor, "*d"]:
    """Return the tensor; in the backward pass its gradient is multiplied by ``scale``."""
    if scale == 1:
        return tensor
    scaled: Tensor = _ScaleGradient.apply(tensor, scale)  # pyright: ignore[reportAssignmentType]
    return scaled


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.scale, None
