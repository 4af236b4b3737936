"""Levels on top of a pyramid, coarser than any that the backbone gave."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ExtraKind = Literal["none", "pool", "conv", "conv_from_input"]
"""``pool`` is one level for the anchors of R-CNN (1612.03144 section 4.1); the ``conv`` kinds are two, for RetinaNet:
from the neck's coarsest output (torchvision's first RetinaNet) or from its coarsest input (1708.02002, detectron2,
torchvision's second)."""


class PooledLevel(nn.Module):
    """One more level: every second cell of the coarsest output."""

    count = 1

    def forward(
        self, source: Float[Tensor, "b _ h w"], output: Float[Tensor, "b c h w"]
    ) -> list[Float[Tensor, "b c _ _"]]:
        return [F.max_pool2d(output, 1, stride=2)]


class ConvolvedLevels(nn.Module):
    """Two more levels, by strided 3x3 convolutions with a ReLU between."""

    count = 2

    def __init__(self, in_channels: int, channels: int, from_input: bool) -> None:
        super().__init__()
        self.from_input = from_input
        self.first = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(
        self, source: Float[Tensor, "b _ h w"], output: Float[Tensor, "b c h w"]
    ) -> list[Float[Tensor, "b c _ _"]]:
        first = self.first(source if self.from_input else output)
        return [first, self.second(F.relu(first))]


def extra_levels(kind: ExtraKind, in_channels: int, channels: int) -> PooledLevel | ConvolvedLevels | None:
    """What makes the extra levels out of a neck's coarsest input (of ``in_channels``) and output (of ``channels``)."""
    match kind:
        case "none":
            return None
        case "pool":
            return PooledLevel()
        case "conv":
            return ConvolvedLevels(channels, channels, from_input=False)
        case "conv_from_input":
            return ConvolvedLevels(in_channels, channels, from_input=True)
