"""The neck for a backbone whose user named none."""

from collections.abc import Mapping

from ..structures import FeatureInfo, PartConfig
from .fpn import FPNConfig
from .levels import backbone_levels
from .simple_pyramid import SimplePyramidConfig

FINEST_STRIDE = 4
"""Finer levels take too much memory (1612.03144 section 3)."""


def default_neck(feature_info: Mapping[str, FeatureInfo]) -> PartConfig:
    """What gives any backbone the ``p`` levels that heads read.

    FPN over the longest run of levels that halve one another, from stride 4 on; the simple pyramid where no two do.
    Of levels of one stride the deepest counts. ValueError where there is no ``c`` level.
    """
    levels = backbone_levels(feature_info)
    if not levels:
        raise ValueError(
            f"a neck reads levels c2, c3, ...; the pyramid has {tuple(feature_info)}: give it a backbone's"
        )
    deepest = {feature_info[level].stride: level for level in levels}
    runs = [_halving_run(deepest, stride) for stride in deepest if stride >= FINEST_STRIDE]
    longest = max(runs, key=len, default=())
    return FPNConfig(levels=longest) if len(longest) > 1 else SimplePyramidConfig()


def _halving_run(by_stride: Mapping[int, str], stride: int) -> tuple[str, ...]:
    """The level of a stride, that of twice the stride, and so on while there is one."""
    return (by_stride[stride], *_halving_run(by_stride, 2 * stride)) if stride in by_stride else ()
