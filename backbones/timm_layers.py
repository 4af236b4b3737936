"""timm's information about parameters: their layers, and which of them must have no weight decay."""

from collections.abc import Container, Iterable
from typing import Any

import torch
from torch import nn

from .timm_probe import UnfitModelError


def extractor_parameter_name(name: str, parameters: Container[str]) -> str:
    """Return the name in a backbone's ``parameters`` of the parameter ``name`` of timm's original model.

    timm has three types of feature extractors, each with its own renaming. A parameter that the extractor lacks keeps
    its name.
    """
    candidates = (name, f"net.model.{name}", f"net.{name}", f"net.{name.replace('.', '_', 1)}")
    return next((candidate for candidate in candidates if candidate in parameters), name)


def full_model(extractor: nn.Module, model: str, options: dict[str, Any]) -> Any:
    """Return the complete model of a feature extractor: its attribute ``model``, or a new model if it has none."""
    import timm

    wrapped = getattr(extractor, "model", None)
    if wrapped is not None:
        return wrapped
    with torch.random.fork_rng(devices=()):
        return timm.create_model(model, **options)


def parameter_layers(model: Any, parameters: Iterable[str]) -> dict[str, int]:
    """Return the layer index of each of a backbone's ``parameters``, from the grouping of timm's ``model``.

    Raises UnfitModelError if the model has no grouping.
    """
    from timm.models import group_parameters

    if not hasattr(model, "group_matcher"):
        raise UnfitModelError("timm does not define its layers")
    parameters = set(parameters)
    group_of_name: Any = group_parameters(model, model.group_matcher(), reverse=True)
    groups = {extractor_parameter_name(name, parameters): group for name, group in group_of_name.items()}
    built = sorted({group for name, group in groups.items() if name in parameters})  # the extractor may lack layers
    return {name: built.index(group) for name, group in groups.items() if name in parameters}


def undecayed_parameters(model: Any, parameters: Iterable[str]) -> frozenset[str]:
    """Return the subset of a backbone's ``parameters`` that timm's ``model`` exempts from weight decay."""
    parameters = set(parameters)
    listed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    return frozenset(extractor_parameter_name(name, parameters) for name in listed) & parameters
