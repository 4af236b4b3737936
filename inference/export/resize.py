"""Resizing of images inside a graph as OpenCV does it outside, so that an exported file can take photos."""

import torch
from jaxtyping import Float, Int32, Int64, UInt8
from torch import Tensor

from ...structures import ImagePreprocessing, KeepSize, ResizedCenterCrop, ShortSideResize

BITS = 11
"""OpenCV rounds the weights of a bilinear resize of uint8 images to this many bits."""


def preprocess_in_graph(
    pixels: UInt8[Tensor, "b c _ _"], preprocessing: ImagePreprocessing
) -> UInt8[Tensor, "b c h w"]:
    """Preprocess a batch of photos of one size; see :func:`vertebra.inference.preprocess_image`.

    A bilinear resize gives OpenCV's pixels. Before a center crop, pixels can differ from OpenCV's by one, since sums
    are rounded in another order.
    """
    height, width = pixels.shape[-2:]
    if isinstance(preprocessing, ResizedCenterCrop):
        short, crop = preprocessing.short_side, preprocessing.size
        rows, columns = _sides(height, width, short, _least(height, width))
        resized = resize_by_area(pixels, rows, columns)
        top, left = (rows - crop) // 2, (columns - crop) // 2
        return resized[:, :, top : top + crop, left : left + crop]
    if isinstance(preprocessing, KeepSize):
        return pixels
    return resize_bilinear(pixels, *resized_size(preprocessing, height, width))


def preprocessed_size(preprocessing: ImagePreprocessing, height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) of a photo after :func:`preprocess_in_graph`."""
    if isinstance(preprocessing, ResizedCenterCrop):
        return preprocessing.size, preprocessing.size
    return (height, width) if isinstance(preprocessing, KeepSize) else resized_size(preprocessing, height, width)


def resized_size(preprocessing: ShortSideResize, height: int, width: int) -> tuple[int, int]:
    """Return ``preprocessing.output_size`` in integer arithmetic, which works for the symbols of a graph too."""
    nearest = preprocessing.rounding == "nearest"
    short, long = _least(height, width), _largest(height, width)
    by_short = _sides(height, width, preprocessing.short_side, short, nearest)
    by_long = _sides(height, width, preprocessing.long_side, long, nearest)
    rows, columns = (_largest(1, _least(*sides)) for sides in zip(by_short, by_long, strict=True))
    return rows, columns


def _least(first: int, second: int) -> int:
    return torch.sym_min(first, second)  # pyright: ignore[reportReturnType]  # symbols only while a graph is traced


def _largest(first: int, second: int) -> int:
    return torch.sym_max(first, second)  # pyright: ignore[reportReturnType]


def _sides(height: int, width: int, target: int, given: int, nearest: bool = True) -> tuple[int, int]:
    """Return the sides of an image after it is scaled by ``target / given``."""
    if nearest:
        return (2 * height * target + given) // (2 * given), (2 * width * target + given) // (2 * given)
    return height * target // given, width * target // given


def resize_bilinear(pixels: UInt8[Tensor, "b c _ _"], height: int, width: int) -> UInt8[Tensor, "b c {height} {width}"]:
    """Resize images as OpenCV does under ``INTER_LINEAR``, in the same fixed-point arithmetic."""
    upper, lower, top, bottom = _taps(pixels.shape[-2], height, pixels.device)
    left, right, west, east = _taps(pixels.shape[-1], width, pixels.device)

    def blend(rows: Int64[Tensor, " h"]) -> Int32[Tensor, "b c h w"]:
        band = pixels.index_select(2, rows)
        return band.index_select(3, left).int() * west + band.index_select(3, right).int() * east

    # The shifts of OpenCV's code; all values are positive.
    first, second = (
        blend(rows) // 2**4 * weights[:, None] // 2**16 for rows, weights in ((upper, top), (lower, bottom))
    )
    return ((first + second + 2) // 4).to(torch.uint8)


def _taps(
    length: int, target: int, device: torch.device
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"], Int32[Tensor, " n"], Int32[Tensor, " n"]]:
    """Return the two pixels that each of ``target`` pixels is blended from, and their weights in 1 / 2048."""
    scale = torch.full((), length, dtype=torch.float64, device=device) / target
    positions = ((torch.arange(target, device=device).double() + 0.5) * scale - 0.5).float()
    first = positions.floor()
    fraction = positions - first
    near, far = (index.long().clamp(0, length - 1) for index in (first, first + 1))
    weights = [(weight * 2**BITS).round().int() for weight in (1 - fraction, fraction)]
    return near, far, weights[0], weights[1]


def resize_by_area(pixels: UInt8[Tensor, "b c _ _"], height: int, width: int) -> UInt8[Tensor, "b c {height} {width}"]:
    """Resize images: to fewer pixels by the mean over the area of each (``INTER_AREA``), to more of them bilinearly."""
    rows = _area_weights(pixels.shape[-2], height, pixels.device)
    columns = _area_weights(pixels.shape[-1], width, pixels.device)
    return (rows @ (pixels.float() @ columns.T)).round().to(torch.uint8)


def _area_weights(length: int, target: int, device: torch.device) -> Float[Tensor, "n m"]:
    """Return the weight of each of ``length`` pixels in each of ``target`` pixels."""
    scale = torch.full((), length, dtype=torch.float64, device=device) / target
    starts = torch.arange(target, device=device).double()[:, None] * scale
    cells = torch.arange(length, device=device).double()
    overlap = torch.minimum(cells + 1, starts + scale) - torch.maximum(cells, starts)
    centers = (starts + scale / 2 - 0.5).clamp(0, length - 1)
    by_distance = 1 - (centers - cells).abs()
    return torch.where(scale > 1, overlap / scale, by_distance).clamp(min=0).float()
