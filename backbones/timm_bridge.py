"""timm's models as backbones: any model that computes feature maps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..structures import FeatureInfo, Features, InputConfig, Levels, UsageError
from .base import BACKBONES, Backbone, BackboneConfig
from .names import TIMM_PREFIX, nearest_timm_models
from .timm_layers import full_model, parameter_layers, undecayed_parameters
from .timm_norms import freeze_norms, synchronize_norms
from .timm_probe import FeatureMap, UnfitModelError, first_line, freeze_unreached, probe, takes_any_size

FLEXIBLE_OPTIONS: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""timm's options that let a model accept images of any size: for ViT, for Swin, and none for other models."""


class TimmConfig(BackboneConfig):
    """The options of a timm model; ``name`` is its name in timm with the prefix ``timm/``: ``timm/convnext_tiny``."""

    levels: Levels | None = None
    """The levels to return, from fine to coarse; the last of several maps of the same stride is the level. None: c2 and
    coarser."""
    in_channels: PositiveInt = 3
    output_stride: Literal[8, 16, 32] | None = None
    """Maximum stride, for models that timm can dilate. None: the model's original strides."""
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Height and width in pixels (or one number for both) for models with a fixed image size. Smaller images are
    padded to it; larger images are an error."""
    patch_size: PositiveInt | None = None
    """The patch size of a ViT; timm resizes the weights. Use 16 for models with 14, since strides must be powers of
    two."""
    norm: Literal["default", "frozen", "sync"] = "default"
    """``frozen`` and ``sync`` replace batch norms by frozen or synchronized batch norms; other norms are unchanged."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth (1603.09382): the probability of skipping the last block in training."""
    checkpointed: bool = False
    """Use timm's activation checkpointing, which saves memory and costs time. It is an error with batch norms that
    update statistics, since timm's implementation would update them twice per batch."""

    def default_input(self) -> InputConfig:
        """Return the pixel normalization of timm's default weights for the model."""
        import timm

        published = timm.get_pretrained_cfg(self.model, allow_unregistered=True)
        if published is None or self.in_channels != len(published.mean):
            return InputConfig.for_channels(self.in_channels)
        return InputConfig(mean=tuple(published.mean), std=tuple(published.std))

    @property
    def model(self) -> str:
        """The model's name in timm."""
        return self.name.removeprefix(TIMM_PREFIX)

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width of the images that the model is built for; None if it accepts any size."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        import timm

        model, dot, tag = name.removeprefix(TIMM_PREFIX).partition(".")
        if not timm.is_model(model):
            nearest = " or ".join(f"'{TIMM_PREFIX}{other}'" for other in nearest_timm_models(model))
            fix = f"did you mean {nearest}?" if nearest else "list them with `vertebra list backbones 'timm/*'`"
            raise ValueError(f"timm has no model {model!r}: {fix}")
        if dot:
            raise ValueError(
                f"the tag {tag!r} belongs to weights, not to a model: create {TIMM_PREFIX}{model} with "
                f"weights='timm/{tag}'"
            )
        return name

    def build_options(self) -> Iterator[dict[str, Any]]:
        """Yield the keyword arguments of timm's ``create_model`` to try, the most flexible image size first."""
        options: dict[str, Any] = {"in_chans": self.in_channels}
        for name in ("output_stride", "patch_size"):
            if (value := getattr(self, name)) is not None:
                options[name] = value
        if self.drop_path:
            options["drop_path_rate"] = self.drop_path
        if self.fixed_size is not None:
            yield options | {"img_size": self.fixed_size}
        for flexible in FLEXIBLE_OPTIONS:
            yield options | flexible


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A timm feature extractor that computes only the requested levels."""

    net: nn.Module
    options: dict[str, Any]  # keyword arguments of timm.create_model
    maps: dict[str, FeatureMap]  # by level
    size: tuple[int, int]  # height and width of the image on which the maps were measured


@BACKBONES.register(TIMM_PREFIX, TimmConfig)
class TimmBackbone(Backbone):
    """A timm model as a backbone.

    Channels, strides and memory layout of its feature maps are measured on a small image, since the model's own
    description may be wrong. Images are padded with zeros at the bottom and right if the model only accepts multiples
    of some size, or rounds the size of its maps down.
    """

    config: TimmConfig
    options: dict[str, Any]
    """The keyword arguments with which timm built the model."""

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config = config
        self.input = config.default_input()
        fitted = _fit(config)
        self.net, self.options, self.maps = fitted.net, fitted.options, fitted.maps
        self.feature_info = {
            level: FeatureInfo(feature_map.channels, feature_map.stride) for level, feature_map in self.maps.items()
        }
        any_size = takes_any_size(self.net, list(self.maps.values()), config.in_channels)
        self.multiple = 1 if any_size else math.gcd(*fitted.size)

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Features:
        height, width = pixels.shape[-2:]
        outputs = self.net(self._pad(pixels))
        features = {}
        for (level, feature_map), output in zip(self.maps.items(), outputs, strict=True):
            maps = output.permute(0, 3, 1, 2) if feature_map.channels_last else output
            features[level] = maps[
                :, :, : math.ceil(height / feature_map.stride), : math.ceil(width / feature_map.stride)
            ]
        return features

    def parameter_layers(self) -> dict[str, int]:
        """Return the layer index of every parameter by its name, from timm's grouping of the model.

        Raises UsageError if timm does not define one.
        """
        names = [name for name, _ in self.named_parameters()]
        try:
            return parameter_layers(full_model(self.net, self.config.model, self.options), names)
        except UnfitModelError as error:
            raise UsageError(
                f"{self.config.name} does not support layer_decay: {error}", "leave out layer_decay"
            ) from None

    def undecayed_parameters(self) -> frozenset[str]:
        """Return the names of parameters that timm exempts from weight decay, such as positional embeddings."""
        names = [name for name, _ in self.named_parameters()]
        return undecayed_parameters(full_model(self.net, self.config.model, self.options), names)

    def _pad(self, pixels: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b c _ _"]:
        height, width = pixels.shape[-2:]
        if self.config.fixed_size is not None:
            bottom, right = self.config.fixed_size[0] - height, self.config.fixed_size[1] - width
            if min(bottom, right) < 0:
                raise ValueError(
                    f"{self.config.name} was built for images of at most {self.config.fixed_size} pixels (height, "
                    f"width), got {(height, width)}: raise image_size, or make the images smaller"
                )
        else:
            bottom, right = -height % self.multiple, -width % self.multiple
        return F.pad(pixels, (0, right, 0, bottom)) if bottom or right else pixels


def _fit(config: TimmConfig) -> FittedModel:
    """Build the model with the most flexible image size that works.

    Raises UsageError with the reason if the model cannot be a backbone, and an option that would help.
    """
    try:
        return _try_to_fit(config)
    except UnfitModelError as error:
        raise UsageError(f"{config.name} cannot be a backbone: {error}", _find_fix(config)) from None


def _try_to_fit(config: TimmConfig) -> FittedModel:
    failure: UnfitModelError | None = None
    for options in config.build_options():
        try:
            net = _build(config, options)
        except UnfitModelError as error:
            failure = failure or error
            continue
        try:
            declared = list(zip(net.feature_info.channels(), net.feature_info.reduction(), strict=True))
            maps, size = probe(net, declared, _candidate_sizes(net, config), config.in_channels)
        except UnfitModelError as error:
            failure = error
            continue
        chosen = _choose_outputs(config, maps)
        if len(chosen) < len(maps):
            indices = net.feature_info.out_indices
            net = _build(config, options | {"out_indices": tuple(indices[output] for output in chosen.values())})
        net = _apply_options(net, config)
        freeze_unreached(net, size, config.in_channels)
        return FittedModel(net, options, {level: maps[output] for level, output in chosen.items()}, size)
    raise failure or UnfitModelError("timm cannot build it")


def _find_fix(config: TimmConfig) -> str:
    """Return advice with an option that makes the model work, found by trying; empty if there is none."""
    import timm

    published = timm.get_pretrained_cfg(config.model, allow_unregistered=True)
    for option, value in (("patch_size", 16), ("image_size", published.input_size[-1] if published else 224)):
        if getattr(config, option) is not None:
            continue
        try:
            _try_to_fit(config.replace(**{option: value}))
        except UnfitModelError:
            continue
        return f"use {option}={value}"
    return ""


def _build(config: TimmConfig, options: dict[str, Any]) -> Any:
    import timm

    try:
        return timm.create_model(config.model, features_only=True, **options)
    except Exception as error:  # an argument that a model lacks may raise a TypeError, AssertionError or anything else
        raise UnfitModelError(f"timm cannot build it: {first_line(error)}") from error


def _apply_options(net: Any, config: TimmConfig) -> nn.Module:
    """Return the extractor with norms replaced and activation checkpointing switched on as the config says."""
    if config.norm == "frozen":
        net = freeze_norms(net)
    elif config.norm == "sync":
        net = synchronize_norms(net)
    if config.checkpointed:
        if any(isinstance(module, _NormBase) and module.track_running_stats for module in net.modules()):
            raise UnfitModelError(
                "with checkpointed=True timm would update its batch norm statistics twice per batch: use norm='frozen'"
            )
        for module in net.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # what is recomputed must find its inputs as they were
        try:
            (net if hasattr(net, "set_grad_checkpointing") else net.model).set_grad_checkpointing()
        except AssertionError as error:
            raise UnfitModelError(f"timm has no activation checkpointing for it: {first_line(error)}") from error
    return net


def _candidate_sizes(net: Any, config: TimmConfig) -> list[tuple[int, int]]:
    """Return the image sizes to try; some models divide their maps into windows, usually of 7 or 8 cells a side."""
    if config.fixed_size is not None:
        return [config.fixed_size]
    coarsest = max(net.feature_info.reduction())
    return [(2 * coarsest, 3 * coarsest), *((coarsest * cells, 2 * coarsest * cells) for cells in (2, 4, 7, 8))]


def _choose_outputs(config: TimmConfig, maps: list[FeatureMap]) -> dict[str, int]:
    """Return the index of the model's output for each requested level."""
    outputs = _name_levels(maps, dilated=config.output_stride is not None)
    invalid_strides = sorted({feature_map.stride for feature_map in maps if feature_map.stride.bit_count() != 1})
    levels = config.levels or tuple(level for level in outputs if level >= "c2")
    if invalid_strides and (config.levels is None or not set(levels) <= outputs.keys()):
        raise UnfitModelError(f"it has maps of stride {invalid_strides}, but strides must be powers of two")
    if missing := [level for level in levels if level not in outputs]:
        raise UnfitModelError(f"it has levels {', '.join(outputs)}, not {', '.join(missing)}")
    coarsest = max(maps[outputs[level]].stride for level in levels)
    if config.output_stride is not None and coarsest > config.output_stride:
        raise UnfitModelError(f"it ignores output_stride: its stride is {coarsest}")
    return {level: outputs[level] for level in levels}


def _name_levels(maps: list[FeatureMap], dilated: bool) -> dict[str, int]:
    """Return the index of the output for each level name: ``cN`` has stride 2^N.

    The last of several maps of the same stride is the level. In a dilated model each of them gets the next name
    instead: c3, c4 and c5 may all have stride 8.
    """
    outputs: dict[str, int] = {}
    number = -1
    for index, feature_map in enumerate(maps):
        if feature_map.stride.bit_count() == 1:
            number = max(int(math.log2(feature_map.stride)), number + 1 if dilated else 0)
            outputs[f"c{number}"] = index
    return outputs
