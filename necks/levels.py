"""Which levels a neck reads, and what those it makes are called."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from ..structures import FeatureInfo, Level

InputLevels = Annotated[tuple[Level, ...], Field(min_length=1)]
"""A backbone's levels, fine to coarse."""


def backbone_levels(feature_info: Mapping[str, FeatureInfo]) -> tuple[str, ...]:
    """Every ``c`` level of a pyramid, fine to coarse."""
    return tuple(level for level in feature_info if level.startswith("c"))


def choose_levels(neck: str, feature_info: Mapping[str, FeatureInfo], levels: InputLevels | None) -> tuple[str, ...]:
    """The levels asked for, or all; ValueError where they are not there or do not halve one another."""
    chosen = levels or backbone_levels(feature_info)
    if not chosen or any(level not in feature_info for level in chosen):
        raise ValueError(f"{neck} reads levels {chosen or 'c2, c3, ...'}; the pyramid has {tuple(feature_info)}")
    strides = {level: feature_info[level].stride for level in chosen}
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides.values())):
        advice = "give it the levels that do, or a backbone with output_stride=32"
        if len(set(strides.values())) == 1:
            advice = "the neck 'simple_pyramid' makes the others out of one resolution"
        raise ValueError(f"{neck} needs each level to halve the one before; got strides {strides}: {advice}")
    return chosen


def pyramid_info(finest: str, stride: int, channels: int, count: int) -> dict[str, FeatureInfo]:
    """``count`` levels numbered from the finest on: c3 of stride 8 gives p3 of stride 8, p4 of stride 16, ..."""
    number = int(finest[1:])
    return {f"p{number + step}": FeatureInfo(channels, stride * 2**step) for step in range(count)}
