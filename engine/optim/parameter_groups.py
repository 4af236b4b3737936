"""Parameter groups: which parameters share a learning rate and a weight decay."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import nn

from ...backbones import Backbone, HasParameterLayers, HasUndecayedParameters
from ...structures import Config, UsageError, suggest

_NORM = re.compile(r"\wNorm")
"""Pattern of the class names of torch's and timm's normalization layers: ``Norm`` after a word character, as in
``BatchNorm2d`` and ``RmsNormAct``. Classes whose names begin with ``Norm`` (``NormFreeBlock``) do not match."""


class ParameterGroupsConfig(Config):
    """How learning rate and weight decay differ between parameters; the configs of all optimizers have these fields.

    A pattern is the name of a module (``backbone``, ``head.mask``), which matches all of its parameters, or a glob such
    as ``*.offset.*``. A parameter matched by several patterns gets the product of their multipliers.
    """

    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of all parameters that the fields below do not cover."""
    norm_weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of the scales and shifts of normalization layers. detectron2 uses 0; torchvision uses the weight
    decay of all other weights."""
    bias_weight_decay: float | None = Field(default=None, ge=0)
    """Weight decay of biases and of other 1-d parameters, such as layer scales. None: ``weight_decay``. timm uses 0."""
    decay_multipliers: dict[str, NonNegativeFloat] = Field(default={})
    """Multipliers of the weight decay, by pattern. Parameters that a backbone excludes from weight decay, such as
    positional embeddings, keep 0."""
    lr_multipliers: dict[str, PositiveFloat] = Field(default={})
    """Multipliers of the learning rate, by pattern: ``{"backbone": 0.1}``."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """Layer-wise learning-rate decay: the factor from each layer of the backbone to the layer below it; neck and head
    have the full rate (2003.10555 section 3.1, 2106.08254; 0.7 to 0.8 for a ViT in 2203.16527). None: no decay."""


def parameter_groups(config: ParameterGroupsConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Return parameter groups for a torch optimizer, one for each pair of ``lr_multiplier`` and ``weight_decay``.

    Only trainable parameters are included. Raises UsageError if a pattern matches no parameter, or if ``layer_decay``
    is set for a backbone that does not define its layers.
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
    """Return for each name the product of the multipliers of all patterns that match it."""
    multipliers = dict.fromkeys(names, 1.0)
    for pattern, multiplier in patterns.items():
        matched = [name for name in multipliers if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not matched:
            raise UsageError(f"no parameter has a name like {pattern!r}", _suggest_word(pattern, multipliers))
        for name in matched:
            multipliers[name] *= multiplier
    return multipliers


def _suggest_word(pattern: str, names: Iterable[str]) -> str:
    """Return a "did you mean" suggestion for the first word of a dotted pattern that matches no parameter's name."""
    rest = list(names)
    for word in pattern.split("."):
        words = {name.partition(".")[0] for name in rest}
        if word not in words:
            return suggest(word, words)
        rest = [name.removeprefix(f"{word}.") for name in rest if name.startswith(f"{word}.")]
    return ""


def _layer_multipliers(decay: float, model: nn.Module) -> dict[str, float]:
    """Return the learning-rate multiplier of each backbone parameter: ``decay ** (number of layers above it)``.

    The neck and the head count together as the topmost layer.
    """
    multipliers: dict[str, float] = {}
    for prefix, backbone in _backbones(model).items():
        if not isinstance(backbone, HasParameterLayers):
            raise UsageError(f"backbone {backbone.config.name} does not define layers", "leave out layer_decay")
        layers = backbone.parameter_layers()
        top = max(layers.values()) + 1
        multipliers |= {prefix + name: decay ** (top - layer) for name, layer in layers.items()}
    return multipliers


def _base_decays(config: ParameterGroupsConfig, model: nn.Module) -> dict[str, float]:
    """Return the weight decay of each parameter before multipliers: that of norms, of biases or of weights."""
    norms = (module for module in model.modules() if _is_norm(module))
    norm_parameters = {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}
    undecayed = {
        prefix + name
        for prefix, backbone in _backbones(model).items()
        if isinstance(backbone, HasUndecayedParameters)
        for name in backbone.undecayed_parameters()
    }
    decays: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if name in undecayed:
            decays[name] = 0.0
        elif id(parameter) in norm_parameters:
            decays[name] = config.norm_weight_decay
        elif parameter.ndim <= 1 and config.bias_weight_decay is not None:
            decays[name] = config.bias_weight_decay
        else:
            decays[name] = config.weight_decay
    return decays


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalization layer, judged by the names of its class and base classes."""
    return any(_NORM.search(base.__name__) for base in type(module).__mro__)


def _backbones(model: nn.Module) -> dict[str, Backbone]:
    """Return the backbones in a model by the prefix of their parameter names (``backbone.``)."""
    return {f"{name}." if name else "": part for name, part in model.named_modules() if isinstance(part, Backbone)}
