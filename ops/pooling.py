"""Average pooling over the unpadded part of an image."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def masked_mean(level: Float[Tensor, "b c h w"], sizes: Int64[Tensor, "b 2"], stride: int) -> Float[Tensor, "b c"]:
    """Return the mean over the cells of each image without its padding, whose extent depends on the rest of the batch.

    ``sizes`` are the unpadded (height, width) of the images in pixels, ``stride`` is the stride of the level.
    """
    cells = (sizes + stride - 1) // stride
    height, width = level.shape[-2:]
    rows = torch.arange(height, device=level.device) < cells[:, :1]
    columns = torch.arange(width, device=level.device) < cells[:, 1:]
    inside = (rows[:, None, :, None] & columns[:, None, None, :]).to(level.dtype)
    return (level * inside).mean(dim=(2, 3)) / inside.mean(dim=(2, 3))
