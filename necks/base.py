"""The interface of a neck: a module that turns a backbone's pyramid into the pyramid that heads read."""

from abc import ABC, abstractmethod

from torch import nn

from ..structures import FeatureInfo, Features, Registry


class Neck(nn.Module, ABC):
    """A module that computes new levels from a backbone's, built from the backbone's ``feature_info``."""

    levels: tuple[str, ...]
    """The levels that it reads, fine to coarse."""
    feature_info: dict[str, FeatureInfo]
    """Channels and stride of every level that ``forward`` returns, in the same order, fine to coarse.

    A map of stride ``s`` has ceil(height / s) x ceil(width / s) cells. A level finer than any that is read is the
    exception: it divides the cells of the finest level read, since the size of the image is not known here.
    """

    @abstractmethod
    def forward(self, features: Features) -> Features:
        """Return the new levels; ``features`` is not changed."""


NECKS: Registry[Neck] = Registry("neck")
"""The necks by name. An entry builds its neck from ``(feature_info, config)``."""
