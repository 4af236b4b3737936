"""What timm states about the parameters of its models: their layers, and which of them must not decay."""

from collections.abc import Container, Iterable
from typing import Any

import torch
from torch import nn

from .timm_probe import UnfitModelError


def extractor_parameter_name(name: str, parameters: Container[str]) -> str:
    """Return the name that a parameter of timm's whole model has among a backbone's ``parameters``.

    timm's three kinds of feature extractors rename parameters in three ways. A parameter that the extractor left out
    keeps its name.
    """
    candidates = (name, f"net.model.{name}", f"net.{name}", f"net.{name.replace('.', '_', 1)}")
    return next((candidate for candidate in candidates if candidate in parameters), name)


def full_model(extractor: nn.Module, model: str, options: dict[str, Any]) -> Any:
    """Return the model that a feature extractor was made of: from inside the extractor, else built anew."""
    import timm

    inside = getattr(extractor, "model", None)
    if inside is not None:
        return inside
    with torch.random.fork_rng(devices=()):
        return timm.create_model(model, **options)


def parameter_layers(model: Any, parameters: Iterable[str]) -> dict[str, int]:
    """Return the layer of each of a backbone's ``parameters`` by the grouping of timm's ``model``.

    Raises UnfitModelError where the model has no grouping.
    """
    from timm.models import group_parameters

    if not hasattr(model, "group_matcher"):
        raise UnfitModelError("timm does not say what its layers are")
    parameters = set(parameters)
    group_of_name: Any = group_parameters(model, model.group_matcher(), reverse=True)
    groups = {extractor_parameter_name(name, parameters): group for name, group in group_of_name.items()}
    built = sorted({group for name, group in groups.items() if name in parameters})  # the extractor may end early
    return {name: built.index(group) for name, group in groups.items() if name in parameters}


def undecayed_parameters(model: Any, parameters: Iterable[str]) -> frozenset[str]:
    """Return those of a backbone's ``parameters`` that timm's ``model`` lists as exempt from weight decay."""
    parameters = set(parameters)
    listed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    return frozenset(extractor_parameter_name(name, parameters) for name in listed) & parameters
