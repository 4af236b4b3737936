"""Any model of timm's that has feature maps, as a backbone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from ..ops import SyncBatchNorm
from ..structures import FeatureInfo, Features, InputConfig, Levels, UsageError, suggest
from .base import BACKBONES, Backbone, BackboneConfig
from .timm_layers import parameter_layers, undecayed_parameters, whole_model
from .timm_probe import FeatureMap, Unfit, first_line, freeze_unreached, probe, takes_any_size

PREFIX = "timm/"
FLEXIBLE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""What makes a model take images of any size: a ViT's option, a Swin's, nothing for the others."""


class TimmConfig(BackboneConfig):
    """A model of timm's by its name there, e.g. ``timm/convnext_tiny``."""

    levels: Levels | None = None
    """Fine to coarse; None: all that the model has from c2 on. The last map of a stride is its level."""
    in_channels: PositiveInt = 3
    output_stride: Literal[8, 16, 32] | None = None
    """No level is coarser than this, where timm can dilate the model. None: as the model is."""
    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Height and width (or both in one) in pixels, for a model that is built for one size: smaller images are padded
    to it, larger ones refused."""
    patch_size: PositiveInt | None = None
    """Of a ViT; timm resizes the weights. 16 for those of 14, whose stride no pyramid can be made of."""
    norm: Literal["own", "frozen", "sync"] = "own"
    """``frozen`` and ``sync`` replace batch norms; other norms are left."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth of the last block (1603.09382)."""
    checkpointed: bool = False
    """Compute activations anew in the backward pass: memory for time. Where timm can, and not with batch norms that
    collect statistics: timm's way would count every batch twice."""

    def input(self) -> InputConfig:
        """That of timm's default weights for the model."""
        import timm

        known = timm.get_pretrained_cfg(self.model, allow_unregistered=True)
        if known is None or self.in_channels != len(known.mean):
            return InputConfig.for_channels(self.in_channels)
        return InputConfig(mean=tuple(known.mean), std=tuple(known.std))

    @property
    def model(self) -> str:
        """The name that timm has for it."""
        return self.name.removeprefix(PREFIX)

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width, where the model is built for one size."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        import timm

        model, dot, tag = name.removeprefix(PREFIX).partition(".")
        if not timm.is_model(model):
            raise ValueError(f"timm has no model {model!r}: {suggest(model, timm.list_models())}")
        if dot:
            raise ValueError(f"a tag names weights, not a model: create {PREFIX}{model} with weights='timm/{tag}'")
        return name

    def build_options(self) -> Iterator[dict[str, Any]]:
        """timm's arguments, the most flexible first."""
        options: dict[str, Any] = {"in_chans": self.in_channels}
        for name in ("output_stride", "patch_size"):
            if (value := getattr(self, name)) is not None:
                options[name] = value
        if self.drop_path:
            options["drop_path_rate"] = self.drop_path
        if self.fixed_size is not None:
            yield options | {"img_size": self.fixed_size}
        for flexible in FLEXIBLE:
            yield options | flexible


@dataclass(frozen=True, slots=True)
class Fit:
    """A model with the outputs that are wanted and no others."""

    net: nn.Module
    options: dict[str, Any]  # timm's arguments that it was built with
    maps: dict[str, FeatureMap]
    size: tuple[int, int]  # of an image, height and width, on which the maps were seen


@BACKBONES.register(PREFIX, TimmConfig)
class TimmBackbone(Backbone):
    """Image -> the levels that the model turned out to have, when it was run on a small image.

    Strides, channels and layout are measured, not believed. A model that does not round sizes up, or that works on
    multiples of some size only, gets its images padded with zeros at the bottom and right.
    """

    config: TimmConfig
    options: dict[str, Any]
    """timm's arguments that the model was built with."""

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config = config
        self.input = config.input()
        fit = _fit(config)
        self.net, self.options, self.maps = fit.net, fit.options, fit.maps
        self.feature_info = {level: FeatureInfo(known.channels, known.stride) for level, known in self.maps.items()}
        any_size = takes_any_size(self.net, list(self.maps.values()), config.in_channels)
        self.multiple = 1 if any_size else math.gcd(*fit.size)

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Features:
        height, width = pixels.shape[-2:]
        outputs = self.net(self._pad(pixels))
        features = {}
        for (level, known), output in zip(self.maps.items(), outputs, strict=True):
            maps = output.permute(0, 3, 1, 2) if known.channels_last else output
            features[level] = maps[:, :, : math.ceil(height / known.stride), : math.ceil(width / known.stride)]
        return features

    def parameter_layers(self) -> dict[str, int]:
        """timm's grouping of the model's own parameters."""
        names = [name for name, _ in self.named_parameters()]
        try:
            return parameter_layers(whole_model(self.net, self.config.model, self.options), names)
        except Unfit as reason:
            raise UsageError(f"{self.config.name} has no layer_decay: {reason}", "leave it out") from None

    def undecayed_parameters(self) -> frozenset[str]:
        """Those that timm lists for the model: embeddings, tables of relative positions."""
        names = [name for name, _ in self.named_parameters()]
        return undecayed_parameters(whole_model(self.net, self.config.model, self.options), names)

    def _pad(self, pixels: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b c _ _"]:
        height, width = pixels.shape[-2:]
        if self.config.fixed_size is not None:
            down, right = self.config.fixed_size[0] - height, self.config.fixed_size[1] - width
            if min(down, right) < 0:
                raise ValueError(
                    f"{self.config.name} was built for images of up to {self.config.fixed_size} pixels, got "
                    f"{(height, width)}: make image_size larger, or the images smaller"
                )
        else:
            down, right = -height % self.multiple, -width % self.multiple
        return F.pad(pixels, (0, right, 0, down)) if down or right else pixels


def _fit(config: TimmConfig) -> Fit:
    """The model built in the most flexible way that works; UsageError with the reason, and what would help."""
    try:
        return _try_to_fit(config)
    except Unfit as reason:
        raise UsageError(f"{config.name} cannot be a backbone: {reason}", _advice(config)) from None


def _try_to_fit(config: TimmConfig) -> Fit:
    refused: Unfit | None = None
    for options in config.build_options():
        try:
            net = _build(config, options)
        except Unfit as error:
            refused = refused or error
            continue
        try:
            declared = list(zip(net.feature_info.channels(), net.feature_info.reduction(), strict=True))
            maps, size = probe(net, declared, _sizes(net, config), config.in_channels)
        except Unfit as error:
            refused = error
            continue
        chosen = _choose(config, maps)
        if len(chosen) < len(maps):
            known = net.feature_info.out_indices
            net = _build(config, options | {"out_indices": tuple(known[index] for index in chosen.values())})
        net = _finished(net, config)
        freeze_unreached(net, size, config.in_channels)
        return Fit(net, options, {level: maps[index] for level, index in chosen.items()}, size)
    raise refused or Unfit("timm cannot build it")


def _advice(config: TimmConfig) -> str:
    """The option with which the same model fits, found by trying."""
    import timm

    known = timm.get_pretrained_cfg(config.model, allow_unregistered=True)
    for option, value in (("patch_size", 16), ("image_size", known.input_size[-1] if known else 224)):
        if getattr(config, option) is not None:
            continue
        try:
            _try_to_fit(config.replace(**{option: value}))
        except Unfit:
            continue
        return f"it can with {option}={value}"
    return ""


def _build(config: TimmConfig, options: dict[str, Any]) -> Any:
    import timm

    try:
        return timm.create_model(config.model, features_only=True, **options)
    except Exception as error:  # a wrong argument may be a TypeError, an assertion or anything else
        raise Unfit(f"timm cannot build it: {first_line(error)}") from error


def _finished(net: Any, config: TimmConfig) -> nn.Module:
    """The model with its norms replaced and its activations recomputed, as the config wants it."""
    from timm.layers.norm_act import freeze_batch_norm_2d

    net = {"own": lambda same: same, "frozen": freeze_batch_norm_2d, "sync": _synchronized}[config.norm](net)
    if config.checkpointed:
        if any(isinstance(module, _NormBase) and module.track_running_stats for module in net.modules()):
            raise Unfit("recomputing would count every batch twice in its batch norms: take norm='frozen' with it")
        try:
            (net if hasattr(net, "set_grad_checkpointing") else net.model).set_grad_checkpointing()
        except AssertionError as error:
            raise Unfit(f"timm cannot recompute its activations: {first_line(error)}") from error
    return net


def _synchronized(net: nn.Module) -> nn.Module:
    """Every batch norm has the statistics of all processes; timm's own class of them ends in an activation."""
    from timm.layers.norm_act import BatchNormAct2d

    class SyncBatchNormAct(SyncBatchNorm):
        drop: nn.Module
        act: nn.Module

        def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
            return self.act(self.drop(super().forward(input)))

    for module in net.modules():
        if isinstance(module, _BatchNorm):  # same tensors, same options: only how it computes is another
            module.__class__ = SyncBatchNormAct if isinstance(module, BatchNormAct2d) else SyncBatchNorm
    return net


def _sizes(net: Any, config: TimmConfig) -> list[tuple[int, int]]:
    """Image sizes to try: some models cut their maps into windows, of 7 or 8 cells as a rule."""
    if config.fixed_size is not None:
        return [config.fixed_size]
    coarsest = max(net.feature_info.reduction())
    return [(2 * coarsest, 3 * coarsest), *((coarsest * cells, 2 * coarsest * cells) for cells in (2, 4, 7, 8))]


def _choose(config: TimmConfig, maps: list[FeatureMap]) -> dict[str, int]:
    """Which output makes each level that is wanted."""
    outputs = _name_levels(maps, dilated=config.output_stride is not None)
    odd = sorted({known.stride for known in maps if known.stride.bit_count() != 1})
    wanted = config.levels or tuple(level for level in outputs if level >= "c2")
    if odd and (config.levels is None or not set(wanted) <= outputs.keys()):
        raise Unfit(f"it has maps of stride {odd}, and levels are powers of two")
    if missing := [level for level in wanted if level not in outputs]:
        raise Unfit(f"it has levels {', '.join(outputs)}, not {', '.join(missing)}")
    coarsest = max(maps[outputs[level]].stride for level in wanted)
    if config.output_stride is not None and coarsest > config.output_stride:
        raise Unfit(f"its stride is {coarsest} whatever output_stride says")
    return {level: outputs[level] for level in wanted}


def _name_levels(maps: list[FeatureMap], dilated: bool) -> dict[str, int]:
    """``cN`` has stride 2 to the N. Of several such maps it is the last; those of a dilated model count on instead."""
    outputs: dict[str, int] = {}
    number = -1
    for index, known in enumerate(maps):
        if known.stride.bit_count() == 1:
            number = max(int(math.log2(known.stride)), number + 1 if dilated else 0)
            outputs[f"c{number}"] = index
    return outputs
