"""What a network's feature maps really are, found out by running it on a small image."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ODD = (65, 97)  # pixels; no stride divides them


class Unfit(Exception):
    """Why a network's feature maps cannot be used; one line."""


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """One of a network's outputs."""

    channels: int
    stride: int
    channels_last: bool


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line."""
    return str(error).partition("\n")[0] or type(error).__name__


def probe(
    net: nn.Module, declared: Sequence[tuple[int, int]], sizes: Iterable[tuple[int, int]], in_channels: int
) -> tuple[list[FeatureMap], tuple[int, int]]:
    """The network's feature maps, and the first of the image sizes on which it gives them.

    ``declared`` are the channels and the stride that it says its outputs have. Raises :class:`Unfit` with the reason
    of the last size.
    """
    reason = Unfit("there is no size to try")
    for size in sizes:
        try:
            outputs = run(net, size, in_channels)
            return [_describe(output, *claim, size) for output, claim in zip(outputs, declared, strict=True)], size
        except Unfit as error:
            reason = error
    raise reason


def run(net: nn.Module, size: tuple[int, int], in_channels: int) -> Sequence[Tensor]:
    """The network's outputs for one black image; Unfit with the network's own complaint."""
    was_training = net.training
    try:
        with torch.no_grad():
            return net.eval()(torch.zeros(1, in_channels, *size))
    except Exception as error:  # whatever a network meets in a size that it was not made for
        raise Unfit(f"at {size[0]} x {size[1]} pixels: {first_line(error)}") from error
    finally:
        net.train(was_training)


def takes_any_size(net: nn.Module, maps: Sequence[FeatureMap], in_channels: int) -> bool:
    """Whether every map of an odd image has ceil(size / stride) cells, as a backbone promises."""
    try:
        outputs = run(net, ODD, in_channels)
    except Unfit:
        return False
    return all(
        _cells(output, known.channels_last) == _ceil(ODD, known.stride)
        for output, known in zip(outputs, maps, strict=True)
    )


def freeze_unreached(net: nn.Module, size: tuple[int, int], in_channels: int) -> None:
    """Parameters that no output depends on learn nothing, and say so, as distributed training wants it."""
    was_training = net.training
    try:
        with torch.enable_grad():
            outputs = net.eval()(torch.zeros(1, in_channels, *size))
            torch.stack([output.sum() for output in outputs]).sum().backward()
    except Exception as error:
        raise Unfit(f"it has no gradient: {first_line(error)}") from error
    for parameter in net.parameters():
        if parameter.grad is None:
            parameter.requires_grad_(False)
        parameter.grad = None
    net.train(was_training)


def _describe(output: Tensor, channels: int, stride: int, size: tuple[int, int]) -> FeatureMap:
    """The claim where the output bears it out, the stride that the output has where another one is exact."""
    for channels_last in (False, True):
        if output.ndim != 4 or output.shape[-1 if channels_last else 1] != channels:
            continue
        cells = _cells(output, channels_last)
        if cells == _ceil(size, stride):
            return FeatureMap(channels, stride, channels_last)
        seen = size[0] // max(1, cells[0])
        if seen > 0 and size == (cells[0] * seen, cells[1] * seen):
            return FeatureMap(channels, seen, channels_last)
    raise Unfit(
        f"an output of {channels} channels for {size[0]} x {size[1]} pixels has shape {tuple(output.shape)}, "
        "which is no map of cells"
    )


def _cells(output: Tensor, channels_last: bool) -> tuple[int, int]:
    rows, columns = output.shape[1:3] if channels_last else output.shape[2:4]
    return rows, columns


def _ceil(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)
