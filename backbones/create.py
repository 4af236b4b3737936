"""Creating and listing backbones by name."""

import logging
import os
from typing import Any

from pydantic import ValidationError

from ..structures import UsageError, usage_error_from_validation
from .base import BACKBONES, Backbone
from .names import TIMM_PREFIX
from .weight_sources import suggest_weights
from .weights import load_weights_with_report


def create_backbone(name: str, weights: str | os.PathLike[str] | None = None, **options: Any) -> Backbone:
    """Build the backbone ``name`` and load pretrained weights into it.

    ``options`` are fields of the backbone's config. ``weights`` is a file or a source such as
    ``torchvision/IMAGENET1K_V2`` or ``timm``; see :func:`load_backbone_weights`, whose summary is logged to the logger
    ``vertebra``. With None the weights are random.

    Raises UsageError for an unknown name or an invalid option, and CheckpointError if the weights do not exist or do
    not fit.
    """
    config_type = BACKBONES[name].config
    if "pretrained" in options:
        raise UsageError("there is no option 'pretrained'; use weights=SOURCE", suggest_weights("", name))
    try:
        config = config_type.model_validate({"name": name, **options})
    except ValidationError as error:
        raise usage_error_from_validation(name, error) from error
    if weights is not None and not isinstance(weights, str | os.PathLike):
        fault = f"weights must be the name of a source or a path, got {weights}"
        raise UsageError(fault, suggest_weights(str(weights), name))
    backbone = BACKBONES.build(config)
    if weights is not None:
        report = load_weights_with_report(backbone, weights)
        logging.getLogger("vertebra").log(logging.WARNING if report.warning else logging.INFO, str(report))
    return backbone


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the names of the backbones that match a shell pattern, such as ``resnext*``.

    timm's models are only included if the pattern begins with ``timm/``, such as ``timm/convnext*``.
    """
    if not pattern.startswith(TIMM_PREFIX):
        return BACKBONES.names(pattern)
    import timm

    return [f"{TIMM_PREFIX}{name}" for name in timm.list_models(pattern.removeprefix(TIMM_PREFIX))]
