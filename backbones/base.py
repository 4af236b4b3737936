"""What a backbone is, and how one is made by name."""

import logging
import os
from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor, nn

from ..structures import FeatureInfo, Features, InputConfig, PartConfig, Registry, usage_error


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


backbones: Registry[Backbone] = Registry("backbone")
"""Backbones by name; an entry builds from ``(config)``."""


def create_backbone(name: str, weights: str | os.PathLike[str] | None = None, **options: Any) -> Backbone:
    """The named backbone; ``options`` are the fields of its config, ``weights`` a source as for
    :func:`load_backbone_weights`, which says in the log what it left.

    UsageError for a wrong option, CheckpointError for weights that are not there or do not fit.
    """
    from .weights import load_backbone_weights  # which needs this module

    config_type = backbones[name].config
    try:
        config = config_type.model_validate({"name": name, **options})
    except ValidationError as error:
        raise usage_error(name, config_type, error) from error
    backbone = backbones.build(config)
    if weights is not None:
        logging.getLogger("vertebra").info(load_backbone_weights(backbone, weights))
    return backbone


def list_backbones(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, e.g. ``resnext*``; timm's models match patterns that begin with ``timm/``."""
    return backbones.names(pattern)
