"""What a neck is."""

from abc import ABC, abstractmethod

from torch import nn

from ..structures import FeatureInfo, Features, Registry


class Neck(nn.Module, ABC):
    """Pyramid -> pyramid. Built from what the levels it is given promise."""

    feature_info: dict[str, FeatureInfo]
    """What ``forward`` returns: the same levels in the same order."""

    @abstractmethod
    def forward(self, features: Features) -> Features:
        """New levels out of a backbone's; those given are left as they are."""


necks: Registry[Neck] = Registry("neck")
"""Necks by name; an entry builds from ``(feature_info, config)``."""
