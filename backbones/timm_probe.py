"""Measuring a network's feature maps by running it on a small image, since its own description may be wrong."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ODD_SIZE = (65, 97)  # height and width in pixels that no stride divides


class UnfitModelError(Exception):
    """Raised if a network cannot be used as a backbone; the message is the reason in one line."""


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """The measured shape of one output of a network."""

    channels: int
    stride: int
    channels_last: bool


def first_line(error: Exception) -> str:
    """Return the first line of an error message, or the error's type if the message is empty."""
    return str(error).partition("\n")[0] or type(error).__name__


def probe(
    net: nn.Module, declared: Sequence[tuple[int, int]], sizes: Iterable[tuple[int, int]], in_channels: int
) -> tuple[list[FeatureMap], tuple[int, int]]:
    """Return the network's feature maps, and the first (height, width) of ``sizes`` that the network accepts.

    ``declared`` holds (channels, stride) of each output as the network describes it. Raises UnfitModelError with the
    reason for the last size if no size works.
    """
    failure = UnfitModelError("there is no size to try")
    for size in sizes:
        try:
            outputs = run_on_zeros(net, size, in_channels)
            maps = [
                _measure(output, channels, stride, size)
                for output, (channels, stride) in zip(outputs, declared, strict=True)
            ]
            return maps, size
        except UnfitModelError as error:
            failure = error
    raise failure


def run_on_zeros(net: nn.Module, size: tuple[int, int], in_channels: int) -> Sequence[Tensor]:
    """Run the network on an image of zeros in evaluation mode, and return its outputs.

    Raises UnfitModelError with the message of any error in the network.
    """
    was_training = net.training
    try:
        with torch.no_grad():
            return net.eval()(torch.zeros(1, in_channels, *size))
    except Exception as error:  # a network may raise anything for a size that it does not support
        raise UnfitModelError(f"at {size[0]} x {size[1]} pixels: {first_line(error)}") from error
    finally:
        net.train(was_training)


def takes_any_size(net: nn.Module, maps: Sequence[FeatureMap], in_channels: int) -> bool:
    """Return whether the network accepts ``ODD_SIZE`` and every map then has ceil(size / stride) cells."""
    try:
        outputs = run_on_zeros(net, ODD_SIZE, in_channels)
    except UnfitModelError:
        return False
    return all(
        _cells(output, feature_map.channels_last) == _ceil_divide(ODD_SIZE, feature_map.stride)
        for output, feature_map in zip(outputs, maps, strict=True)
    )


def freeze_unreached(net: nn.Module, size: tuple[int, int], in_channels: int) -> None:
    """Freeze the parameters that no output depends on, since distributed training would wait for their gradients."""
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
    """Return the channels, stride and layout of an output for an image of ``size`` (height, width).

    The declared stride is used if it matches the number of cells; otherwise the stride is the exact ratio of pixels to
    cells. Raises UnfitModelError if the output is not a feature map with ``channels`` channels.
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
        "which is not a feature map"
    )


def _cells(output: Tensor, channels_last: bool) -> tuple[int, int]:
    rows, columns = output.shape[1:3] if channels_last else output.shape[2:4]
    return rows, columns


def _ceil_divide(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)
