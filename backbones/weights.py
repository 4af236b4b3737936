"""Loading pretrained weights into a backbone."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ..ops import join_first, state_dict_problems
from ..structures import CheckpointError, InputConfig
from .base import Backbone, BackboneConfig
from .timm_bridge import TimmBackbone
from .timm_layers import extractor_parameter_name
from .weight_sources import read_source_metadata, read_weights
from .weight_style import check_style, style_warning

_CLASSIFIER = ("fc.", "classifier.", "head.")
_BATCH_COUNTER, _DEFORMABLE_OFFSET = "num_batches_tracked", ".offset."


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """A report of the weights that were loaded from a source and of what was left; ``str`` makes it one line."""

    source: str
    summary: str
    warning: str
    """What looks wrong with the weights; empty as a rule."""

    def __str__(self) -> str:
        return f"{self.source}: {self.summary}" + (f"; {self.warning}" if self.warning else "")


def load_backbone_weights(backbone: Backbone, source: str | os.PathLike[str]) -> str:
    """Load pretrained weights into a backbone and return a line that says what was loaded and what was left.

    ``source`` is one of

    - a file: ``.safetensors``, or ``.pth`` that holds tensors only. Of the ``model.safetensors`` in a checkpoint of
      Vertebra's the backbone is taken;
    - ``torchvision/NAME`` for weights of torchvision's (``torchvision/IMAGENET1K_V1``);
    - ``timm`` for timm's default weights of a model of this name, ``timm/TAG`` for others (``timm/a1_in1k``), and
      ``timm/MODEL.TAG`` for weights that timm lists under another model (``timm/resnet50_gn.a1h_in1k``);
    - ``vertebra/shapes_resnet10t``, which comes with the package.

    The classifier is dropped, and so are stages that this backbone was built without. A first convolution for another
    number of channels gets the sum over red, green and blue (one channel), or their repetition scaled to the same
    total (others), as in timm. The normalisation of pixels that the weights expect becomes ``backbone.input``: load
    them before the backbone goes into a ``Model``, which reads it when it is made.

    Raises CheckpointError for any other tensor that is missing, unexpected, of another shape or not finite, and for
    weights that are known to be of the other ``style`` of a ResNet. Where a file only looks like the other style, the
    line ends with a warning (see ``weight_style.py``).
    """
    return str(load_weights_with_report(backbone, source))


def load_weights_with_report(backbone: Backbone, source: str | os.PathLike[str]) -> WeightsReport:
    """Load pretrained weights as :func:`load_backbone_weights` does, and return the report as a value."""
    source = os.fspath(source)
    is_timm = isinstance(backbone, TimmBackbone)
    weights = read_weights(source, backbone.config.name, backbone.options if is_timm else None)
    check_style(backbone.config, weights.style, source)
    expected = backbone.state_dict()
    tensors = _select_backbone(weights.tensors)
    warning = style_warning(backbone.config, tensors) if weights.style is None else ""
    if is_timm:
        tensors = {extractor_parameter_name(name, expected): tensor for name, tensor in tensors.items()}
    else:
        tensors = _adapt_input_channels(tensors, backbone)
    stages = {name.partition(".")[0] for name in expected}
    problems = state_dict_problems(
        tensors,
        expected,
        # Counters exist only where statistics are collected, and offsets are learned from zero.
        may_lack=lambda name: name.endswith(_BATCH_COUNTER) or _DEFORMABLE_OFFSET in name,
        may_have=lambda name: is_timm or _may_be_left(name, stages),
    )
    loaded = {name: tensor for name, tensor in tensors.items() if name in expected}
    if problems or not loaded:
        raise CheckpointError(
            f"does not fit {backbone.config.name}: {join_first(problems) or 'no tensor has a name of its'}",
            "is it of another model?",
            file=source,
        )
    backbone.load_state_dict(loaded, strict=False)
    backbone.input = _choose_input(weights.input, backbone.input)
    summary = _summarize(tensors, expected, other_parts=len(weights.tensors) - len(tensors))
    return WeightsReport(source, summary, warning)


def weights_input(config: BackboneConfig, source: str | os.PathLike[str] | None) -> InputConfig:
    """Return the normalisation of pixels that a backbone expects with the weights ``source``; nothing is loaded.

    Raises CheckpointError where there is no such source, or where it states another style than ``config``'s.
    """
    if source is None:
        return config.default_input()
    metadata = read_source_metadata(os.fspath(source), config.name)
    check_style(config, metadata.style, os.fspath(source))
    return _choose_input(metadata.input, config.default_input())


def _choose_input(stated: InputConfig | None, default: InputConfig) -> InputConfig:
    """Return what the weights state, unless they state nothing or the backbone has another number of channels."""
    return default if stated is None or len(stated.mean) != len(default.mean) else stated


def _select_backbone(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the backbone's tensors out of a whole model of Vertebra's; other state dicts as they are."""
    prefix = "backbone."
    selected = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return selected or tensors


def _adapt_input_channels(tensors: Mapping[str, Tensor], backbone: Backbone) -> Mapping[str, Tensor]:
    """Return the tensors with the first convolution's weights made for the backbone's number of input channels."""
    name, first = next((name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d))
    key = f"{name}.weight"
    if key not in tensors or tensors[key].shape[1] != 3 or first.in_channels == 3:
        return tensors
    from timm.models import adapt_input_conv

    return {**tensors, key: adapt_input_conv(first.in_channels, tensors[key])}


def _may_be_left(name: str, stages: set[str]) -> bool:
    """Return whether a tensor that a checkpoint has and the backbone lacks may be left out."""
    is_unbuilt_stage = name.startswith("layer") and name.partition(".")[0] not in stages
    return name.startswith(_CLASSIFIER) or is_unbuilt_stage or name.endswith(_BATCH_COUNTER)


def _summarize(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], other_parts: int) -> str:
    """Return how many tensors were loaded, how many of which part were left, and what starts untrained."""
    left = Counter(
        "batch counters" if name.endswith(_BATCH_COUNTER) else name.partition(".")[0]
        for name in tensors.keys() - expected.keys()
    )
    if other_parts:
        left["other parts of the model"] = other_parts
    words = [f"loaded {len(tensors.keys() & expected.keys())} tensors"]
    if left:
        words.append(f"left {', '.join(f'{part} ({count})' for part, count in sorted(left.items()))}")
    if offsets := sum(_DEFORMABLE_OFFSET in name for name in expected.keys() - tensors.keys()):
        words.append(f"{offsets} of deformable convolutions start untrained")
    return "; ".join(words)
