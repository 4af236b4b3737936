"""What a backbone is."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from ..structures import FeatureInfo, Features, InputConfig, PartConfig, Registry, UsageError


class BackboneConfig(PartConfig):
    """Which backbone, and how it is built."""

    def input(self) -> InputConfig:
        """How its weights want their pixels, unless they say otherwise themselves."""
        return InputConfig()


class Backbone(nn.Module, ABC):
    """Image -> pyramid."""

    config: BackboneConfig
    feature_info: dict[str, FeatureInfo]
    """What ``forward`` returns: the same levels in the same order, each ceil(size / stride) cells high and wide."""
    input: InputConfig = InputConfig()
    """How its weights want their pixels; loading weights sets it."""

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Features:
        """Feature maps of normalised pixels, by level name, fine to coarse."""

    def parameter_layers(self) -> dict[str, int]:
        """The layer that each parameter is in, by its name: 0 is the stem, and each block above it is one more.

        For learning rates that fall with the depth. UsageError where nobody has said what the layers are.
        """
        raise UsageError(f"{self.config.name} does not say what its layers are", "leave out layer_decay")

    def undecayed_parameters(self) -> frozenset[str]:
        """The names of parameters that are no weights, and are never to decay: positional embeddings, for one."""
        return frozenset()


BACKBONES: Registry[Backbone] = Registry("backbone")
"""Backbones by name; an entry builds from ``(config)``."""
