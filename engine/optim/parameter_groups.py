"""Which parameters share a learning rate and a weight decay."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import nn

from ...backbones import Backbone, HasParameterLayers, HasUndecayedParameters
from ...structures import Config, UsageError, suggest

_NORM = re.compile(r"\wNorm")
"""What the classes of normalisation layers, or those that they derive from, are called, torch's and timm's: the kind,
and then the word (``BatchNorm2d``, ``RmsNormAct``). What begins with the word is none (``NormFreeBlock``)."""


class ParameterGroupsConfig(Config):
    """What every optimiser's config says of rates and decays.

    A pattern is a part's name (``backbone``, ``head.mask``), which stands for all that is in it, or has ``*`` in it
    (``*.offset.*``). A parameter that several match gets the product of their multipliers.
    """

    weight_decay: float = Field(default=0.0, ge=0)
    norm_weight_decay: float = Field(default=0.0, ge=0)
    """Decay of the scales and shifts of normalisation layers (detectron2's default; torchvision's is weight_decay)."""
    bias_weight_decay: float | None = Field(default=None, ge=0)
    """Of biases and whatever else has one axis, such as layer scales; None: as weights. timm's is 0."""
    decay_multipliers: dict[str, NonNegativeFloat] = Field(default={})
    """By pattern. What a backbone says must not decay, such as positional embeddings, never does."""
    lr_multipliers: dict[str, PositiveFloat] = Field(default={})
    """By pattern: ``{"backbone": 0.1}``."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """With it the learning rate falls by this factor from each layer of the backbone to the one below it; neck and
    head have the rate itself (2003.10555 section 3.1, 2106.08254; 0.7 to 0.8 for a ViT in 2203.16527)."""


def parameter_groups(config: ParameterGroupsConfig, model: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters by ``lr_multiplier`` and ``weight_decay``.

    UsageError for a pattern that matches nothing, and for a backbone that does not know its layers.
    """
    names = [name for name, _ in model.named_parameters()]
    rates, decays = _multipliers(config.lr_multipliers, names), _multipliers(config.decay_multipliers, names)
    if config.layer_decay is not None:
        for name, multiplier in _layer_multipliers(config.layer_decay, model).items():
            rates[name] *= multiplier
    base = _base_decays(config, model)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = rates[name], decays[name] * base[name]
            empty = {"params": [], "lr_multiplier": key[0], "weight_decay": key[1]}
            groups.setdefault(key, empty)["params"].append(parameter)
    return list(groups.values())


def _multipliers(patterns: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """The product of what matches each name."""
    found = dict.fromkeys(names, 1.0)
    for pattern, multiplier in patterns.items():
        matched = [name for name in found if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not matched:
            raise UsageError(f"no parameter has a name like {pattern!r}", _nearest(pattern, found))
        for name in matched:
            found[name] *= multiplier
    return found


def _nearest(pattern: str, names: Iterable[str]) -> str:
    """A word for the first one of the pattern that leads nowhere."""
    rest = list(names)
    for word in pattern.split("."):
        words = {name.partition(".")[0] for name in rest}
        if word not in words:
            return suggest(word, words)
        rest = [name.removeprefix(f"{word}.") for name in rest if name.startswith(f"{word}.")]
    return ""


def _layer_multipliers(decay: float, model: nn.Module) -> dict[str, float]:
    """``decay`` to the power of how many layers, the neck and the head being the last one, follow on a parameter's."""
    found: dict[str, float] = {}
    for place, backbone in _backbones(model).items():
        if not isinstance(backbone, HasParameterLayers):
            raise UsageError(f"{backbone.config.name} does not say what its layers are", "leave out layer_decay")
        layers = backbone.parameter_layers()
        top = max(layers.values()) + 1
        found |= {place + name: decay ** (top - layer) for name, layer in layers.items()}
    return found


def _base_decays(config: ParameterGroupsConfig, model: nn.Module) -> dict[str, float]:
    """Each parameter's decay by its kind."""
    norms = (module for module in model.modules() if _is_norm(module))
    of_norms = {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}
    never = {
        place + name
        for place, backbone in _backbones(model).items()
        if isinstance(backbone, HasUndecayedParameters)
        for name in backbone.undecayed_parameters()
    }
    decays: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if name in never:
            decays[name] = 0.0
        elif id(parameter) in of_norms:
            decays[name] = config.norm_weight_decay
        elif parameter.ndim <= 1 and config.bias_weight_decay is not None:
            decays[name] = config.bias_weight_decay
        else:
            decays[name] = config.weight_decay
    return decays


def _is_norm(module: nn.Module) -> bool:
    return any(_NORM.search(kind.__name__) for kind in type(module).__mro__)


def _backbones(model: nn.Module) -> dict[str, Backbone]:
    """The backbones in a model, by what the names of their parameters begin with."""
    return {
        f"{place}." if place else "": module for place, module in model.named_modules() if isinstance(module, Backbone)
    }
