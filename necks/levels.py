"""The levels that a neck reads and the names and promises of those that it makes."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from ..structures import FeatureInfo, Level

InputLevels = Annotated[tuple[Level, ...], Field(min_length=1)]
"""Names of a backbone's levels, fine to coarse."""


def backbone_levels(feature_info: Mapping[str, FeatureInfo]) -> tuple[str, ...]:
    """Return the names of a pyramid's ``c`` levels, fine to coarse."""
    return tuple(level for level in feature_info if level.startswith("c"))


def choose_levels(neck: str, feature_info: Mapping[str, FeatureInfo], levels: InputLevels | None) -> tuple[str, ...]:
    """Return the levels that a neck reads: ``levels``, or every ``c`` level for None.

    Raises ValueError where one of them is not in the pyramid, or does not have twice the stride of the one before.
    """
    chosen = levels or backbone_levels(feature_info)
    if not chosen or any(level not in feature_info for level in chosen):
        raise ValueError(f"{neck} reads levels {chosen or 'c2, c3, ...'}; the pyramid has {tuple(feature_info)}")
    strides = {level: feature_info[level].stride for level in chosen}
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides.values())):
        fix = "name levels that do in `levels`, or build the backbone with output_stride=32"
        if len(set(strides.values())) == 1:
            fix = "the neck 'simple_pyramid' makes a pyramid out of one resolution"
        raise ValueError(f"{neck} needs each level to have twice the stride of the one before; got {strides}: {fix}")
    return chosen


def pyramid_info(finest: str, stride: int, channels: int, count: int) -> dict[str, FeatureInfo]:
    """Return the ``feature_info`` of ``count`` levels, numbered from the finest on.

    From c3 of stride 8 come p3 of stride 8, p4 of stride 16 and so on.
    """
    number = int(finest[1:])
    return {f"p{number + step}": FeatureInfo(channels, stride * 2**step) for step in range(count)}
