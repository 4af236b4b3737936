"""Choosing a default neck for the levels of a backbone."""

from collections.abc import Mapping

from ..structures import FeatureInfo, PartConfig
from .fpn import FPNConfig
from .levels import backbone_levels
from .simple_pyramid import SimplePyramidConfig

FINEST_STRIDE = 4
"""The finest stride that the default FPN reads; finer levels need too much memory (1612.03144 section 3)."""


def default_neck(feature_info: Mapping[str, FeatureInfo]) -> PartConfig:
    """Return the config of a neck that computes ``p`` levels from the levels of any backbone.

    This is an FPN over the longest sequence of levels in which each has twice the stride of the previous one, with
    strides of at least 4; if there are no two such levels, it is the simple pyramid. The deepest of several levels
    with the same stride is used. Raises ValueError if ``feature_info`` has no ``c`` levels.
    """
    levels = backbone_levels(feature_info)
    if not levels:
        raise ValueError(
            f"a neck reads levels c2, c3, ..., but the input has {tuple(feature_info)}: pass a backbone's feature_info"
        )
    level_of_stride = {feature_info[level].stride: level for level in levels}
    runs = [_doubling_run(level_of_stride, stride) for stride in level_of_stride if stride >= FINEST_STRIDE]
    longest = max(runs, key=len, default=())
    return FPNConfig(levels=longest) if len(longest) > 1 else SimplePyramidConfig()


def _doubling_run(level_of_stride: Mapping[int, str], stride: int) -> tuple[str, ...]:
    """Return the levels of stride ``stride``, 2 * ``stride``, 4 * ``stride``, ... up to the first missing stride."""
    run = []
    while stride in level_of_stride:
        run.append(level_of_stride[stride])
        stride *= 2
    return tuple(run)
