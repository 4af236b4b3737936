"""The default neck for the levels of any backbone."""

from collections.abc import Mapping

from ..structures import FeatureInfo, PartConfig
from .fpn import FPNConfig
from .levels import backbone_levels
from .simple_pyramid import SimplePyramidConfig

FINEST_STRIDE = 4
"""The finest stride that an FPN gets; finer levels take too much memory (1612.03144 section 3)."""


def default_neck(feature_info: Mapping[str, FeatureInfo]) -> PartConfig:
    """Return the config of a neck that makes ``p`` levels out of whatever levels a backbone has.

    It is an FPN over the longest run of levels that double their stride, from stride 4 on, or the simple pyramid where
    no two levels do. Of several levels with one stride the deepest counts.

    Raises ValueError for a pyramid without ``c`` levels.
    """
    levels = backbone_levels(feature_info)
    if not levels:
        raise ValueError(
            f"a neck reads levels c2, c3, ...; the pyramid has {tuple(feature_info)}: give it a backbone's feature_info"
        )
    level_of_stride = {feature_info[level].stride: level for level in levels}
    runs = [_doubling_run(level_of_stride, stride) for stride in level_of_stride if stride >= FINEST_STRIDE]
    longest = max(runs, key=len, default=())
    return FPNConfig(levels=longest) if len(longest) > 1 else SimplePyramidConfig()


def _doubling_run(level_of_stride: Mapping[int, str], stride: int) -> tuple[str, ...]:
    """Return the levels of a stride, of twice the stride, and so on as long as there is one."""
    run = []
    while stride in level_of_stride:
        run.append(level_of_stride[stride])
        stride *= 2
    return tuple(run)
