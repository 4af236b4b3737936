"""The pyramid: named feature maps, fine to coarse, and what each level promises."""

from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float
from pydantic import AfterValidator, Field
from torch import Tensor

Level = Annotated[str, Field(pattern=r"^c\d$")]
"""The name of a backbone's level."""


def _require_fine_to_coarse(levels: tuple[str, ...]) -> tuple[str, ...]:
    if list(levels) != sorted(set(levels)):
        raise ValueError(f"levels go fine to coarse, each once, like ('c2', 'c5'); got {levels}")
    return levels


Levels = Annotated[tuple[Level, ...], Field(min_length=1), AfterValidator(_require_fine_to_coarse)]
"""The levels that are read of a backbone."""

Features = dict[str, Float[Tensor, "b _ _ _"]]
"""Feature maps by level name, fine to coarse: ``c2..c5`` out of a backbone, ``p2..p7`` out of a neck."""


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """The channels and the stride that a pyramid level promises."""

    channels: int
    stride: int  # input pixels per cell
