"""Extra levels that a neck adds to its pyramid, coarser than the coarsest level of the backbone."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from ..ops import NormLayer, conv_block
from .layers import halve

ExtraMethod = Literal["none", "pool", "conv", "conv_from_input", "pool_from_input"]
"""How extra levels are computed.

- ``none``: there are no extra levels.
- ``pool``: every second cell of the neck's coarsest output, for R-CNN's anchors (1612.03144 section 4.1).
- ``conv``: strided 3x3 convolutions on the neck's coarsest output (torchvision's first RetinaNet).
- ``conv_from_input``: strided 3x3 convolutions on the neck's coarsest input (1708.02002, detectron2, torchvision's
  second RetinaNet).
- ``pool_from_input``: a 1x1 convolution on the neck's coarsest input, then max pooling (EfficientDet).
"""

MODULE_NAMES = ("first", "second", "third", "fourth", "fifth", "sixth")

ExtraCount = Annotated[int, Field(ge=1, le=len(MODULE_NAMES))]


class ExtraLevels(nn.Module, ABC):
    """A module that computes ``count`` extra levels, each half the size of the previous level."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    @abstractmethod
    def forward(
        self, source: Float[Tensor, "b _ _ _"], output: Float[Tensor, "b c _ _"]
    ) -> list[Float[Tensor, "b c _ _"]]:
        """Compute the extra levels, from fine to coarse.

        ``source`` is the neck's coarsest input, ``output`` its coarsest output.
        """


class PooledLevels(ExtraLevels):
    """Extra levels that take every second cell of the previous level; no levels if ``count`` is 0."""

    def forward(
        self, source: Float[Tensor, "b _ _ _"], output: Float[Tensor, "b c _ _"]
    ) -> list[Float[Tensor, "b c _ _"]]:
        return [F.max_pool2d(output, 1, stride=2 ** (step + 1)) for step in range(self.count)]


class ConvolvedLevels(ExtraLevels):
    """Extra levels from strided 3x3 convolutions, with a ReLU between them if ``relu`` is set."""

    def __init__(
        self, count: int, in_channels: int, channels: int, from_input: bool, norm: NormLayer, relu: bool
    ) -> None:
        super().__init__(count)
        self.from_input, self.relu = from_input, relu
        for name in MODULE_NAMES[:count]:
            self.add_module(name, conv_block(in_channels, channels, 3, norm, stride=2))
            in_channels = channels

    def forward(
        self, source: Float[Tensor, "b _ _ _"], output: Float[Tensor, "b c _ _"]
    ) -> list[Float[Tensor, "b c _ _"]]:
        first, *rest = self.children()
        levels = [first(source if self.from_input else output)]
        for convolution in rest:
            levels.append(convolution(F.relu(levels[-1]) if self.relu else levels[-1]))
        return levels


class ProjectedLevels(ExtraLevels):
    """Extra levels from a 1x1 convolution on the neck's coarsest input and repeated max pooling."""

    def __init__(self, count: int, in_channels: int, channels: int, norm: NormLayer) -> None:
        super().__init__(count)
        self.project = conv_block(in_channels, channels, 1, norm)

    def forward(
        self, source: Float[Tensor, "b _ _ _"], output: Float[Tensor, "b c _ _"]
    ) -> list[Float[Tensor, "b c _ _"]]:
        levels = [halve(self.project(source))]
        while len(levels) < self.count:
            levels.append(halve(levels[-1]))
        return levels


def extra_levels(
    method: ExtraMethod,
    count: int | None,
    in_channels: int,
    channels: int,
    norm: NormLayer = nn.Identity,
    relu: bool = True,
) -> ExtraLevels:
    """Build the module that computes the extra levels of a neck.

    ``in_channels`` is the number of channels of the neck's coarsest input, ``channels`` that of its output. With
    ``count=None`` there are as many levels as in the papers: one for ``pool``, two for the other methods. ``relu`` puts
    a ReLU between the convolutions of ``conv`` and ``conv_from_input``.
    """
    match method:
        case "none" if count is not None:
            raise ValueError(f"extra_count={count} contradicts extra='none': leave out one of them")
        case "none":
            return PooledLevels(0)
        case "pool":
            return PooledLevels(count or 1)
        case "pool_from_input":
            return ProjectedLevels(count or 2, in_channels, channels, norm)
        case "conv":
            return ConvolvedLevels(count or 2, channels, channels, from_input=False, norm=norm, relu=relu)
        case "conv_from_input":
            return ConvolvedLevels(count or 2, in_channels, channels, from_input=True, norm=norm, relu=relu)
