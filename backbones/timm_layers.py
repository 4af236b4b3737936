"""What timm says of the parameters of its models: the layer that each is in, and which must not decay."""

from collections.abc import Container, Iterable
from typing import Any

import torch
from torch import nn

from .timm_probe import Unfit


def own_name(name: str, own: Container[str]) -> str:
    """What a tensor of a whole model is called in the backbone made of it; timm has three kinds of extractors."""
    kinds = (name, f"net.model.{name}", f"net.{name}", f"net.{name.replace('.', '_', 1)}")
    return next((kind for kind in kinds if kind in own), name)


def whole_model(net: nn.Module, model: str, options: dict[str, Any]) -> Any:
    """The model that a feature extractor was made of: it is still in there, or another one is built."""
    import timm

    inside = getattr(net, "model", None)
    if inside is not None:
        return inside
    with torch.random.fork_rng(devices=()):
        return timm.create_model(model, **options)


def parameter_layers(whole: Any, own: Iterable[str]) -> dict[str, int]:
    """The layer of each of a backbone's parameters, by timm's own grouping; Unfit where the model has none."""
    from timm.models import group_parameters

    if not hasattr(whole, "group_matcher"):
        raise Unfit("timm does not say what its layers are")
    own = set(own)
    named: Any = group_parameters(whole, whole.group_matcher(), reverse=True)
    groups = {own_name(name, own): group for name, group in named.items()}
    built = sorted({group for name, group in groups.items() if name in own})  # the extractor may end early
    return {name: built.index(group) for name, group in groups.items() if name in own}


def undecayed_parameters(whole: Any, own: Iterable[str]) -> frozenset[str]:
    """Those of a backbone's parameters that timm's model says must not decay."""
    own = set(own)
    listed = whole.no_weight_decay() if hasattr(whole, "no_weight_decay") else ()
    return frozenset(own_name(name, own) for name in listed) & own
