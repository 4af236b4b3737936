"""What a backbone is, and how one is made by name."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor, nn

from ..structures import FeatureInfo, Features, Registry, usage_error


class Backbone(nn.Module, ABC):
    """Image -> pyramid."""

    feature_info: dict[str, FeatureInfo]
    """What ``forward`` returns: the same levels in the same order, each ceil(size / stride) cells high and wide."""

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Features:
        """Feature maps of normalised pixels, by level name, fine to coarse."""


backbones: Registry[Backbone] = Registry("backbone")
"""Backbones by name; an entry builds from ``(config)``."""


def create_backbone(name: str, **options: Any) -> Backbone:
    """The named backbone with random weights; ``options`` are the fields of its config. UsageError for a wrong one."""
    config_type = backbones[name].config
    try:
        config = config_type.model_validate({"name": name, **options})
    except ValidationError as error:
        raise usage_error(name, config_type, error) from error
    return backbones.build(config)


def list_backbones(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, e.g. ``resnext*``."""
    return backbones.names(pattern)
