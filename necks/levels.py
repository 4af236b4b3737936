"""Checking the levels that a neck reads, and naming the levels that it computes."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from ..structures import FeatureInfo, Level

InputLevels = Annotated[tuple[Level, ...], Field(min_length=1)]
"""Names of a backbone's levels, from fine to coarse."""


def backbone_levels(feature_info: Mapping[str, FeatureInfo]) -> tuple[str, ...]:
    """Return the names of the ``c`` levels in ``feature_info``, from fine to coarse."""
    return tuple(level for level in feature_info if level.startswith("c"))


def choose_levels(neck: str, feature_info: Mapping[str, FeatureInfo], levels: InputLevels | None) -> tuple[str, ...]:
    """Return the levels that a neck reads: ``levels``, or all ``c`` levels for None.

    ``neck`` is the name for error messages. Raises ValueError if a level is missing in ``feature_info``, or does not
    have twice the stride of the previous level.
    """
    chosen = levels or backbone_levels(feature_info)
    if not chosen or any(level not in feature_info for level in chosen):
        raise ValueError(f"{neck} reads levels {chosen or 'c2, c3, ...'}, but the input has {tuple(feature_info)}")
    strides = {level: feature_info[level].stride for level in chosen}
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides.values())):
        fix = "choose other `levels`, or build the backbone with output_stride=32"
        if len(set(strides.values())) == 1:
            fix = "use the neck 'simple_pyramid', which builds a pyramid from a single resolution"
        raise ValueError(f"{neck} needs levels that each have twice the stride of the previous; got {strides}: {fix}")
    return chosen


def pyramid_info(finest: str, stride: int, channels: int, count: int) -> dict[str, FeatureInfo]:
    """Return the ``feature_info`` of ``count`` output levels, numbered from the finest input level.

    For the finest level c3 with stride 8 these are p3 with stride 8, p4 with stride 16, and so on.
    """
    number = int(finest[1:])
    return {f"p{number + step}": FeatureInfo(channels, stride * 2**step) for step in range(count)}
