"""Backbones by name."""

import logging
import os
from typing import Any

from pydantic import ValidationError

from ..structures import usage_error_from_validation
from .base import BACKBONES, Backbone
from .timm_bridge import PREFIX
from .weights import load_backbone_weights


def create_backbone(name: str, weights: str | os.PathLike[str] | None = None, **options: Any) -> Backbone:
    """The named backbone; ``options`` are the fields of its config, ``weights`` a source as for
    :func:`load_backbone_weights`, which says in the log what it left.

    UsageError for a wrong option, CheckpointError for weights that are not there or do not fit.
    """
    config_type = BACKBONES[name].config
    try:
        config = config_type.model_validate({"name": name, **options})
    except ValidationError as error:
        raise usage_error_from_validation(name, error) from error
    backbone = BACKBONES.build(config)
    if weights is not None:
        logging.getLogger("vertebra").info(load_backbone_weights(backbone, weights))
    return backbone


def list_backbones(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, e.g. ``resnext*``; timm's are listed for patterns that begin with ``timm/``."""
    if not pattern.startswith(PREFIX):
        return BACKBONES.names(pattern)
    import timm

    return [f"{PREFIX}{name}" for name in timm.list_models(pattern.removeprefix(PREFIX))]
