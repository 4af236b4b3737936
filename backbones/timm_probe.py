"""Measuring a network's feature maps by running it on a small image, instead of trusting what it states."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ODD_SIZE = (65, 97)  # pixels; no stride divides them


class UnfitModelError(Exception):
    """The reason, in one line, why a network's feature maps cannot be those of a backbone."""


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """The measured shape of one output of a network."""

    channels: int
    stride: int
    channels_last: bool


def first_line(error: Exception) -> str:
    """Return the first line of another library's error message, or the error's type where it has none."""
    return str(error).partition("\n")[0] or type(error).__name__


def probe(
    net: nn.Module, declared: Sequence[tuple[int, int]], sizes: Iterable[tuple[int, int]], in_channels: int
) -> tuple[list[FeatureMap], tuple[int, int]]:
    """Return the network's feature maps and the first of the image sizes on which it computes them.

    ``declared`` are the channels and stride that the network states for each output, ``sizes`` (height, width) are
    tried in turn. Raises UnfitModelError with the reason of the last size.
    """
    reason = UnfitModelError("there is no size to try")
    for size in sizes:
        try:
            outputs = run_on_zeros(net, size, in_channels)
            maps = [
                _measure(output, channels, stride, size)
                for output, (channels, stride) in zip(outputs, declared, strict=True)
            ]
            return maps, size
        except UnfitModelError as error:
            reason = error
    raise reason


def run_on_zeros(net: nn.Module, size: tuple[int, int], in_channels: int) -> Sequence[Tensor]:
    """Return the network's outputs, in evaluation mode, for one image of zeros.

    Raises UnfitModelError with the network's own error message.
    """
    was_training = net.training
    try:
        with torch.no_grad():
            return net.eval()(torch.zeros(1, in_channels, *size))
    except Exception as error:  # whatever a network meets in a size that it was not made for
        raise UnfitModelError(f"at {size[0]} x {size[1]} pixels: {first_line(error)}") from error
    finally:
        net.train(was_training)


def takes_any_size(net: nn.Module, maps: Sequence[FeatureMap], in_channels: int) -> bool:
    """Return whether every map of an image of odd size has ceil(size / stride) cells, as a backbone promises."""
    try:
        outputs = run_on_zeros(net, ODD_SIZE, in_channels)
    except UnfitModelError:
        return False
    return all(
        _cells(output, feature_map.channels_last) == _ceil_divide(ODD_SIZE, feature_map.stride)
        for output, feature_map in zip(outputs, maps, strict=True)
    )


def freeze_unreached(net: nn.Module, size: tuple[int, int], in_channels: int) -> None:
    """Set ``requires_grad`` to False for parameters that no output depends on.

    Distributed training would wait for their gradients.
    """
    was_training = net.training
    try:
        with torch.enable_grad():
            outputs = net.eval()(torch.zeros(1, in_channels, *size))
            torch.stack([output.sum() for output in outputs]).sum().backward()
    except Exception as error:
        raise UnfitModelError(f"it has no gradient: {first_line(error)}") from error
    for parameter in net.parameters():
        if parameter.grad is None:
            parameter.requires_grad_(False)
        parameter.grad = None
    net.train(was_training)


def _measure(output: Tensor, channels: int, stride: int, size: tuple[int, int]) -> FeatureMap:
    """Return the layout and stride of an output for an image of ``size``.

    The declared stride is kept where it explains the number of cells; otherwise the stride is the exact ratio of
    pixels to cells. Raises UnfitModelError where the output is no map of ``channels`` over a grid of cells.
    """
    for channels_last in (False, True):
        if output.ndim != 4 or output.shape[-1 if channels_last else 1] != channels:
            continue
        cells = _cells(output, channels_last)
        if cells == _ceil_divide(size, stride):
            return FeatureMap(channels, stride, channels_last)
        measured = size[0] // max(1, cells[0])
        if measured > 0 and size == (cells[0] * measured, cells[1] * measured):
            return FeatureMap(channels, measured, channels_last)
    raise UnfitModelError(
        f"an output of {channels} channels for {size[0]} x {size[1]} pixels has shape {tuple(output.shape)}, "
        "which is no map of cells"
    )


def _cells(output: Tensor, channels_last: bool) -> tuple[int, int]:
    rows, columns = output.shape[1:3] if channels_last else output.shape[2:4]
    return rows, columns


def _ceil_divide(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)
