"""timm's models as backbones: any model of timm's that computes feature maps."""

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
"""timm's options that make a model take images of any size: a ViT's, a Swin's, none for the others."""


class TimmConfig(BackboneConfig):
    """The options of a model of timm's; ``name`` is timm's name with a prefix, e.g. ``timm/convnext_tiny``."""

    levels: Levels | None = None
    """The levels to return, fine to coarse. None: all from c2 on. Of several maps of a stride the last is the level."""
    in_channels: PositiveInt = 3
    output_stride: Literal[8, 16, 32] | None = None
    """The stride that no level exceeds, for models that timm can dilate. None: the model's own strides."""
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Height and width in pixels (or one number for both) of a model that is built for one size. Smaller images are
    padded to it, larger ones refused."""
    patch_size: PositiveInt | None = None
    """The patch size of a ViT; timm resizes the weights. Take 16 for models of 14, which fits no pyramid."""
    norm: Literal["default", "frozen", "sync"] = "default"
    """``frozen`` and ``sync`` replace batch norms by frozen or synchronised ones; other norms stay as they are."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth (1603.09382): the probability of skipping the last block in training."""
    checkpointed: bool = False
    """Whether to use activation checkpointing, which trades time for memory, where timm can. It is refused for batch
    norms that collect statistics, since timm's way would count every batch twice."""

    def default_input(self) -> InputConfig:
        """Return the normalisation that timm states for its default weights of the model."""
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
        """Height and width of the images that the model is built for; None where it takes any size."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        import timm

        model, dot, tag = name.removeprefix(TIMM_PREFIX).partition(".")
        if not timm.is_model(model):
            nearest = " or ".join(f"'{TIMM_PREFIX}{other}'" for other in nearest_timm_models(model))
            fix = f"did you mean {nearest}?" if nearest else "`vertebra list backbones 'timm/*'` lists them"
            raise ValueError(f"timm has no model {model!r}: {fix}")
        if dot:
            raise ValueError(f"a tag names weights, not a model: create {TIMM_PREFIX}{model} with weights='timm/{tag}'")
        return name

    def build_options(self) -> Iterator[dict[str, Any]]:
        """Yield the arguments to try for timm's ``create_model``, the most flexible image size first."""
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
    """A feature extractor of timm's that computes the wanted levels and no others."""

    net: nn.Module
    options: dict[str, Any]  # timm's arguments that it was built with
    maps: dict[str, FeatureMap]  # by level
    size: tuple[int, int]  # height and width of the image on which the maps were measured


@BACKBONES.register(TIMM_PREFIX, TimmConfig)
class TimmBackbone(Backbone):
    """A model of timm's: image -> the levels that it was found to compute when it was run on a small image.

    Strides, channels and layout are measured, not taken from what the model states. Where the model does not round
    sizes up, or works on multiples of some size only, images are padded with zeros at the bottom and right.
    """

    config: TimmConfig
    options: dict[str, Any]
    """timm's arguments that the model was built with."""

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config = config
        self.input = config.default_input()
        fitted = _fit(config)
        self.net, self.options, self.maps = fitted.net, fitted.options, fitted.maps
        self.feature_info = {level: FeatureInfo(known.channels, known.stride) for level, known in self.maps.items()}
        any_size = takes_any_size(self.net, list(self.maps.values()), config.in_channels)
        self.multiple = 1 if any_size else math.gcd(*fitted.size)

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Features:
        height, width = pixels.shape[-2:]
        outputs = self.net(self._pad(pixels))
        features = {}
        for (level, known), output in zip(self.maps.items(), outputs, strict=True):
            maps = output.permute(0, 3, 1, 2) if known.channels_last else output
            features[level] = maps[:, :, : math.ceil(height / known.stride), : math.ceil(width / known.stride)]
        return features

    def parameter_layers(self) -> dict[str, int]:
        """Return the layer of every parameter by its name, by timm's own grouping of the model.

        Raises UsageError where timm has no grouping of it.
        """
        names = [name for name, _ in self.named_parameters()]
        try:
            return parameter_layers(full_model(self.net, self.config.model, self.options), names)
        except UnfitModelError as reason:
            raise UsageError(f"{self.config.name} has no layer_decay: {reason}", "leave out layer_decay") from None

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
                    f"{self.config.name} was built for images of up to {self.config.fixed_size} pixels, got "
                    f"{(height, width)}: make image_size larger, or the images smaller"
                )
        else:
            bottom, right = -height % self.multiple, -width % self.multiple
        return F.pad(pixels, (0, right, 0, bottom)) if bottom or right else pixels


def _fit(config: TimmConfig) -> FittedModel:
    """Build the model in the most flexible way that works.

    Raises UsageError with the reason why it cannot be a backbone, and the option that would help.
    """
    try:
        return _try_to_fit(config)
    except UnfitModelError as reason:
        raise UsageError(f"{config.name} cannot be a backbone: {reason}", _find_fix(config)) from None


def _try_to_fit(config: TimmConfig) -> FittedModel:
    reason: UnfitModelError | None = None
    for options in config.build_options():
        try:
            net = _build(config, options)
        except UnfitModelError as error:
            reason = reason or error
            continue
        try:
            declared = list(zip(net.feature_info.channels(), net.feature_info.reduction(), strict=True))
            maps, size = probe(net, declared, _candidate_sizes(net, config), config.in_channels)
        except UnfitModelError as error:
            reason = error
            continue
        chosen = _choose_outputs(config, maps)
        if len(chosen) < len(maps):
            indices = net.feature_info.out_indices
            net = _build(config, options | {"out_indices": tuple(indices[output] for output in chosen.values())})
        net = _apply_options(net, config)
        freeze_unreached(net, size, config.in_channels)
        return FittedModel(net, options, {level: maps[output] for level, output in chosen.items()}, size)
    raise reason or UnfitModelError("timm cannot build it")


def _find_fix(config: TimmConfig) -> str:
    """Return advice with the option that makes the model fit, found by trying; empty where none does."""
    import timm

    published = timm.get_pretrained_cfg(config.model, allow_unregistered=True)
    for option, value in (("patch_size", 16), ("image_size", published.input_size[-1] if published else 224)):
        if getattr(config, option) is not None:
            continue
        try:
            _try_to_fit(config.replace(**{option: value}))
        except UnfitModelError:
            continue
        return f"it can with {option}={value}"
    return ""


def _build(config: TimmConfig, options: dict[str, Any]) -> Any:
    import timm

    try:
        return timm.create_model(config.model, features_only=True, **options)
    except Exception as error:  # a wrong argument may be a TypeError, an assertion or anything else
        raise UnfitModelError(f"timm cannot build it: {first_line(error)}") from error


def _apply_options(net: Any, config: TimmConfig) -> nn.Module:
    """Return the extractor with its batch norms replaced and activation checkpointing on, as the config asks."""
    if config.norm == "frozen":
        net = freeze_norms(net)
    elif config.norm == "sync":
        net = synchronize_norms(net)
    if config.checkpointed:
        if any(isinstance(module, _NormBase) and module.track_running_stats for module in net.modules()):
            raise UnfitModelError(
                "recomputing would count every batch twice in its batch norms: take norm='frozen' with it"
            )
        try:
            (net if hasattr(net, "set_grad_checkpointing") else net.model).set_grad_checkpointing()
        except AssertionError as error:
            raise UnfitModelError(f"timm cannot recompute its activations: {first_line(error)}") from error
    return net


def _candidate_sizes(net: Any, config: TimmConfig) -> list[tuple[int, int]]:
    """Return the image sizes to try: some models cut their maps into windows, of 7 or 8 cells as a rule."""
    if config.fixed_size is not None:
        return [config.fixed_size]
    coarsest = max(net.feature_info.reduction())
    return [(2 * coarsest, 3 * coarsest), *((coarsest * cells, 2 * coarsest * cells) for cells in (2, 4, 7, 8))]


def _choose_outputs(config: TimmConfig, maps: list[FeatureMap]) -> dict[str, int]:
    """Return the index of the output that makes each wanted level."""
    outputs = _name_levels(maps, dilated=config.output_stride is not None)
    odd_strides = sorted({known.stride for known in maps if known.stride.bit_count() != 1})
    wanted = config.levels or tuple(level for level in outputs if level >= "c2")
    if odd_strides and (config.levels is None or not set(wanted) <= outputs.keys()):
        raise UnfitModelError(f"it has maps of stride {odd_strides}, and levels are powers of two")
    if missing := [level for level in wanted if level not in outputs]:
        raise UnfitModelError(f"it has levels {', '.join(outputs)}, not {', '.join(missing)}")
    coarsest = max(maps[outputs[level]].stride for level in wanted)
    if config.output_stride is not None and coarsest > config.output_stride:
        raise UnfitModelError(f"its stride is {coarsest} whatever output_stride says")
    return {level: outputs[level] for level in wanted}


def _name_levels(maps: list[FeatureMap], dilated: bool) -> dict[str, int]:
    """Return the index of the output for each level name: ``cN`` has a stride of 2^N.

    Of several maps of one stride the last is the level. In a dilated model they count on instead: c3, c4 and c5 may
    all have stride 8.
    """
    outputs: dict[str, int] = {}
    number = -1
    for index, known in enumerate(maps):
        if known.stride.bit_count() == 1:
            number = max(int(math.log2(known.stride)), number + 1 if dilated else 0)
            outputs[f"c{number}"] = index
    return outputs
