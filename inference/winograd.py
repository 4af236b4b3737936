"""Winograd's convolution for float32 on CPUs: 3x3 convolutions with a quarter of the multiplications.

The output is computed in tiles of 4 x 4 cells, each from 6 x 6 cells of the input: F(4x4, 3x3) of 1509.09308. Input and
output tiles are transformed by additions and a few multiplications; between the two transforms there is a matrix
product over the channels for each of the 36 cells. The rounding errors are about four times those of a direct
convolution in float32.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE = 4
"""Side of a tile of the output."""
MIN_CHANNELS, MAX_CHANNELS = 128, 256
"""Numbers of channels for which the method is used. With fewer, the transforms take longer than they save; with more,
the transformed weights, four times as large as the weights, take too much memory."""
MIN_TILES = 48
"""Maps with fewer tiles are convolved directly, since reading the transformed weights would take most of the time."""
BAND_TILES = 320
"""Tiles that are computed together, so that the transformed values stay in the cache of the processor."""

# 1509.09308 section 4.3, for the interpolation points 0, 1, -1, 2, -2 and infinity
INPUT_TRANSFORM = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
WEIGHT_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT_TRANSFORM = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class WinogradConv2d(nn.Module):
    """A replacement for a 3x3 convolution of stride 1 and padding 1, for inference."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        transform = torch.tensor(WEIGHT_TRANSFORM, dtype=torch.float64)
        transformed = torch.einsum("ai,kcij,bj->abck", transform, convolution.weight.double(), transform)
        self.register_buffer("transformed", transformed.flatten(0, 1).float().contiguous(), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        return _winograd(values, self.get_buffer("transformed"), self.weight, self.bias)


def replace_convolutions(network: nn.Module) -> int:
    """Replace the convolutions of a network for which the method is faster, in place; return their number."""
    count = 0
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and _is_suitable(child):
                setattr(parent, name, WinogradConv2d(child))
                count += 1
    return count


def _is_suitable(convolution: nn.Conv2d) -> bool:
    """Return whether a convolution can be computed by this method and is likely to become faster."""
    ordinary = (convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation) == (
        (3, 3), (1, 1), (1, 1), (1, 1)
    )  # fmt: skip
    ordinary = ordinary and convolution.groups == 1 and convolution.padding_mode == "zeros"
    channels = (convolution.in_channels, convolution.out_channels)
    plain = convolution.weight.dtype == torch.float32 and convolution.weight.device.type == "cpu"
    return ordinary and plain and min(channels) >= MIN_CHANNELS and max(channels) <= MAX_CHANNELS


@torch.library.custom_op("vertebra::winograd", mutates_args=())
def _winograd(values: Tensor, transformed: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute a convolution with transformed weights or, on small maps, with the original ``weight``."""
    batch, _, height, width = values.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    values = values.contiguous(memory_format=torch.channels_last)
    if rows * columns < MIN_TILES:
        return F.conv2d(values, weight, bias, padding=1).contiguous(memory_format=torch.channels_last)
    result = values.new_empty((batch, height, width, transformed.shape[2]))
    bands = max(1, round(rows * columns / BAND_TILES))
    step = -(-rows // bands)
    for image, output in zip(values.permute(0, 2, 3, 1), result, strict=True):
        for first in range(0, rows, step):
            top, bottom = first * TILE - 1, (first + step) * TILE + 1
            inside = image[max(top, 0) : bottom]
            padding = (0, 0, 1, columns * TILE + 1 - width, max(-top, 0), max(bottom - height, 0))
            products = torch.bmm(_compiled(_transform_input)(F.pad(inside, padding)), transformed)
            band = _compiled(_transform_output)(products, columns)[:, :width]
            if bias is not None:
                band += bias
            target = output[first * TILE : (first + step) * TILE]
            target.copy_(band[: len(target)])
    return result.permute(0, 3, 1, 2)


@_winograd.register_fake
def _(values: Tensor, transformed: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    batch, _, height, width = values.shape
    return values.new_empty((batch, height, width, transformed.shape[2])).permute(0, 3, 1, 2)


def _transform_input(band: Tensor) -> Tensor:
    """Transform a padded band (rows, columns, channels) to (36, tiles, channels)."""
    rows, columns, channels = (band.shape[0] - 2) // TILE, (band.shape[1] - 2) // TILE, band.shape[2]
    cells = [
        [band[row : row + TILE * rows : TILE, column : column + TILE * columns : TILE] for column in range(6)]
        for row in range(6)
    ]
    transformed = _transform_both_axes(INPUT_TRANSFORM, cells)
    return torch.stack([cell for row in transformed for cell in row]).reshape(36, rows * columns, channels)


def _transform_output(products: Tensor, columns: int) -> Tensor:
    """Transform (36, tiles, channels) to a band (rows, columns, channels) of the output."""
    channels = products.shape[2]
    cells = products.view(6, 6, -1, columns, channels)
    tiles = _transform_both_axes(OUTPUT_TRANSFORM, [list(row) for row in cells.unbind(0)])
    band = torch.stack([torch.stack(row, dim=2) for row in tiles], dim=1)
    return band.reshape(-1, columns * TILE, channels)


def _transform_both_axes(matrix: Sequence[Sequence[int]], cells: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Return ``matrix @ cells @ matrix.T``, where the cells are tensors."""
    by_row = [[_combine(factors, [row[column] for row in cells]) for column in range(6)] for factors in matrix]
    return [[_combine(factors, row) for factors in matrix] for row in by_row]


def _combine(factors: Sequence[int], cells: Sequence[Tensor]) -> Tensor:
    """Return the sum of the cells times their factors; cells whose factor is 0 are skipped."""
    terms = [cell if factor == 1 else cell * factor for factor, cell in zip(factors, cells, strict=True) if factor]
    return functools.reduce(torch.add, terms)


@functools.cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function compiled for bands of any size; it is called as it is if it turns out not to compile."""
    from torch._dynamo.exc import TorchDynamoException

    compiled: Callable[..., Tensor] | None = torch.compile(function, dynamic=True)

    @functools.wraps(function)
    def call(*arguments: Any) -> Tensor:
        nonlocal compiled
        if compiled is not None:
            try:
                return compiled(*arguments)
            except TorchDynamoException:
                compiled = None
        return function(*arguments)

    return call
