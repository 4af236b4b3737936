"""The interface of backbones: networks that turn images into feature maps of several resolutions."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from ..structures import FeatureInfo, Features, InputConfig, PartConfig, Registry
from .names import suggest_backbones


class BackboneConfig(PartConfig, ABC):
    """Base class of backbone configs; ``name`` is the name under which the backbone is registered."""

    @abstractmethod
    def default_input(self) -> InputConfig:
        """Return the pixel normalization to use if the weights do not state the one they were trained with."""


class Backbone(nn.Module, ABC):
    """Base class of backbones, which turn normalized pixels into feature maps of several resolutions.

    Subclasses must set ``config`` and ``feature_info`` in their constructor. To support layer-wise learning-rate decay
    and parameters without weight decay, implement :class:`HasParameterLayers` and :class:`HasUndecayedParameters`.
    """

    config: BackboneConfig
    feature_info: dict[str, FeatureInfo]
    """Channels and stride of every level that ``forward`` returns, in the same order, from fine to coarse.

    A map of stride ``s`` has ceil(height / s) x ceil(width / s) cells.
    """
    input: InputConfig = InputConfig()
    """The pixel normalization that the weights were trained with. Loading pretrained weights sets it."""

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Features:
        """Compute the feature maps of normalized pixels, by level name, from fine to coarse."""


@runtime_checkable
class HasParameterLayers(Protocol):
    """A backbone that supports layer-wise learning-rate decay: it knows the layer of each parameter."""

    def parameter_layers(self) -> dict[str, int]:
        """Return the layer index of every parameter by its name: 0 for the stem, then 1, 2, ... for the blocks.

        Raises UsageError if layers are not defined for this network.
        """
        ...


@runtime_checkable
class HasUndecayedParameters(Protocol):
    """A backbone with parameters, such as positional embeddings, that must have no weight decay."""

    def undecayed_parameters(self) -> frozenset[str]:
        """Return the names of the parameters that must have no weight decay."""
        ...


BACKBONES: Registry[Backbone] = Registry("backbone", suggest=suggest_backbones)
"""The registry of backbones; each entry is a class or function that builds a backbone from its config."""
