"""What a neck is."""

from abc import ABC, abstractmethod

from torch import nn

from ..structures import FeatureInfo, Features, Registry


class Neck(nn.Module, ABC):
    """Pyramid -> pyramid. Built from what the levels it is given promise."""

    levels: tuple[str, ...]
    """The levels it reads, fine to coarse."""
    feature_info: dict[str, FeatureInfo]
    """What ``forward`` returns: the same levels in the same order, each ceil(size / stride) cells high and wide.

    A level finer than any read covers the cells of the finest read whole: the size of the image is not in them.
    """

    @abstractmethod
    def forward(self, features: Features) -> Features:
        """New levels out of a backbone's; those given are left as they are."""


NECKS: Registry[Neck] = Registry("neck")
"""Necks by name; an entry builds from ``(feature_info, config)``."""
