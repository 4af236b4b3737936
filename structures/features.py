"""Feature pyramids: named feature maps from fine to coarse, with the channels and stride of each level."""

from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor

Level = Annotated[str, Field(pattern=r"^c\d$")]
"""The name of a backbone level, such as ``c4``."""


def _require_fine_to_coarse(levels: tuple[str, ...]) -> tuple[str, ...]:
    if list(levels) != sorted(set(levels)):
        raise ValueError(f"levels go fine to coarse, each once, like ('c2', 'c5'); got {levels}")
    return levels


Levels = Annotated[tuple[Level, ...], Field(min_length=1), AfterValidator(_require_fine_to_coarse)]
"""The names of the backbone levels to use, fine to coarse, each once."""

Features = dict[str, Float[Tensor, "b _ _ _"]]
"""Feature maps by level name, fine to coarse: ``c2..c5`` out of a backbone, ``p2..p7`` out of a neck."""


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """The number of channels and the stride of a pyramid level."""

    channels: int
    stride: int  # input pixels per cell
