"""The interface of necks: modules that turn a backbone's feature maps into the pyramid that heads read."""

from abc import ABC, abstractmethod

from torch import nn

from ..structures import FeatureInfo, Features, Registry


class Neck(nn.Module, ABC):
    """Base class of necks, which compute new levels from a backbone's levels.

    A neck is built from the backbone's ``feature_info``, and its constructor must set ``levels`` and ``feature_info``.
    """

    levels: tuple[str, ...]
    """The levels that the neck reads, from fine to coarse."""
    feature_info: dict[str, FeatureInfo]
    """Channels and stride of every level that ``forward`` returns, in the same order, from fine to coarse.

    A map of stride ``s`` has ceil(height / s) x ceil(width / s) cells. The exception are levels finer than every input
    level: they subdivide the cells of the finest input, since the neck does not know the size of the image.
    """

    @abstractmethod
    def forward(self, features: Features) -> Features:
        """Compute the new levels by name; ``features`` is not changed."""


NECKS: Registry[Neck] = Registry("neck")
"""The registry of necks; each entry is a class or function that builds a neck from ``(feature_info, config)``."""
