"""The interface of a backbone: a network that turns images into a pyramid of feature maps."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from ..structures import FeatureInfo, Features, InputConfig, PartConfig, Registry
from .names import suggest_backbones


class BackboneConfig(PartConfig, ABC):
    """The hyper-parameters of a backbone; ``name`` is the name it is registered under."""

    @abstractmethod
    def default_input(self) -> InputConfig:
        """Return the normalisation of the pixels that the backbone expects when its weights do not state one."""


class Backbone(nn.Module, ABC):
    """A network that turns normalised pixels into feature maps of several resolutions.

    A subclass sets ``config`` and ``feature_info`` when it is built. It may also implement
    :class:`HasParameterLayers` and :class:`HasUndecayedParameters`, which optimizers look for.
    """

    config: BackboneConfig
    feature_info: dict[str, FeatureInfo]
    """Channels and stride of every level that ``forward`` returns, in the same order, fine to coarse.

    A map of stride ``s`` has ceil(height / s) x ceil(width / s) cells.
    """
    input: InputConfig = InputConfig()
    """The normalisation of the pixels that the weights expect. Loading pretrained weights sets it."""

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Features:
        """Return the feature maps of normalised pixels by level name, fine to coarse."""


@runtime_checkable
class HasParameterLayers(Protocol):
    """A backbone that knows how deep each of its parameters lies, as layer-wise learning rate decay needs it."""

    def parameter_layers(self) -> dict[str, int]:
        """Return the layer of every parameter by its name: 0 is the stem, each block after it is one more.

        Raises UsageError where this network has no such layers.
        """
        ...


@runtime_checkable
class HasUndecayedParameters(Protocol):
    """A backbone with parameters, such as positional embeddings, that weight decay must leave alone."""

    def undecayed_parameters(self) -> frozenset[str]:
        """Return the names of the parameters that must not decay."""
        ...


BACKBONES: Registry[Backbone] = Registry("backbone", suggest=suggest_backbones)
"""The backbones by name. An entry builds its backbone from ``(config)``."""
