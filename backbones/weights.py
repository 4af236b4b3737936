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
    """A report on loading weights: which tensors were loaded and which were ignored; ``str`` gives one line."""

    source: str
    summary: str
    warning: str
    """A warning about the weights, usually empty."""

    def __str__(self) -> str:
        return f"{self.source}: {self.summary}" + (f"; {self.warning}" if self.warning else "")


def load_backbone_weights(backbone: Backbone, source: str | os.PathLike[str]) -> str:
    """Load pretrained weights into a backbone; return a line that lists the loaded and the ignored tensors.

    ``source`` is one of

    - a file: ``.safetensors``, or ``.pth`` with a state dict in any usual wrapping (see ``wrappers.py``). From the
      ``model.safetensors`` of a Vertebra checkpoint the backbone is loaded;
    - ``torchvision/NAME`` for torchvision's weights (``torchvision/IMAGENET1K_V1``);
    - ``timm`` for timm's default weights of the model with this name, ``timm/TAG`` for its other weights
      (``timm/a1_in1k``), and ``timm/MODEL.TAG`` for weights that timm lists under another model
      (``timm/resnet50_gn.a1h_in1k``);
    - ``vertebra/shapes_resnet10t``, which ships with the package.

    The classifier and stages that this backbone lacks are ignored. If the backbone has another number of input
    channels, the weights of the first convolution are adapted as in timm: summed over red, green and blue for one
    channel, otherwise repeated and scaled to the same total. ``backbone.input`` is set to the pixel normalization of
    the weights: load them before building a ``Model``, which reads it in its constructor.

    Raises CheckpointError if any other tensor is missing, unexpected, of another shape or not finite, or if the weights
    are known to have the other ``style`` of a ResNet. If a file only seems to have the other style, the line ends with
    a warning (see ``weight_style.py``).
    """
    return str(load_weights_with_report(backbone, source))


def load_weights_with_report(backbone: Backbone, source: str | os.PathLike[str]) -> WeightsReport:
    """Load pretrained weights as :func:`load_backbone_weights` does, and return the report as an object."""
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
        # Frozen norms have no batch counters, and ordinary convolutions no deformable offsets.
        may_lack=lambda name: name.endswith(_BATCH_COUNTER) or _DEFORMABLE_OFFSET in name,
        may_have=lambda name: is_timm or _may_be_ignored(name, stages),
    )
    loaded = {name: tensor for name, tensor in tensors.items() if name in expected}
    if problems or not loaded:
        raise CheckpointError(
            f"does not fit {backbone.config.name}: {join_first(problems) or 'no tensor has a matching name'}",
            "check that these weights belong to this model",
            file=source,
        )
    backbone.load_state_dict(loaded, strict=False)
    backbone.input = _choose_input(weights.input, backbone.input)
    summary = _summarize(tensors, expected, other_parts=len(weights.tensors) - len(tensors))
    summary = "; ".join([*weights.removed, summary])
    return WeightsReport(source, summary, warning)


def weights_input(config: BackboneConfig, source: str | os.PathLike[str] | None) -> InputConfig:
    """Return the pixel normalization that a backbone needs with the weights ``source``, without loading them.

    Raises CheckpointError if the source does not exist, or if its weights have another style than ``config``.
    """
    if source is None:
        return config.default_input()
    metadata = read_source_metadata(os.fspath(source), config.name)
    check_style(config, metadata.style, os.fspath(source))
    return _choose_input(metadata.input, config.default_input())


def _choose_input(stated: InputConfig | None, default: InputConfig) -> InputConfig:
    """Return the normalization ``stated`` by the weights if it has the right number of channels, else ``default``."""
    return default if stated is None or len(stated.mean) != len(default.mean) else stated


def _select_backbone(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the backbone's tensors of a complete Vertebra model; return any other state dict unchanged."""
    prefix = "backbone."
    selected = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return selected or tensors


def _adapt_input_channels(tensors: Mapping[str, Tensor], backbone: Backbone) -> Mapping[str, Tensor]:
    """Return the tensors with the first convolution adapted to the backbone's number of input channels."""
    name, first = next((name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d))
    key = f"{name}.weight"
    if key not in tensors or tensors[key].shape[1] != 3 or first.in_channels == 3:
        return tensors
    from timm.models import adapt_input_conv

    return {**tensors, key: adapt_input_conv(first.in_channels, tensors[key])}


def _may_be_ignored(name: str, stages: set[str]) -> bool:
    """Return whether a tensor of the source that the backbone lacks may be ignored: classifiers, unbuilt stages."""
    is_unbuilt_stage = name.startswith("layer") and name.partition(".")[0] not in stages
    return name.startswith(_CLASSIFIER) or is_unbuilt_stage or name.endswith(_BATCH_COUNTER)


def _summarize(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], other_parts: int) -> str:
    """Return how many tensors were loaded, how many of each part were ignored, and what starts untrained."""
    ignored = Counter(
        "batch counters" if name.endswith(_BATCH_COUNTER) else name.partition(".")[0]
        for name in tensors.keys() - expected.keys()
    )
    if other_parts:
        ignored["other parts of the model"] = other_parts
    phrases = [f"loaded {len(tensors.keys() & expected.keys())} tensors"]
    if ignored:
        phrases.append(f"ignored {', '.join(f'{part} ({count})' for part, count in sorted(ignored.items()))}")
    if offsets := sum(_DEFORMABLE_OFFSET in name for name in expected.keys() - tensors.keys()):
        phrases.append(f"{offsets} tensors of deformable offsets start untrained")
    return "; ".join(phrases)
