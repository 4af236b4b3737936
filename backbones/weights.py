"""Pretrained weights into a backbone."""

import os
from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn

from ..ops import join_first, state_dict_problems
from ..structures import CheckpointError, InputConfig
from .base import Backbone, BackboneConfig
from .timm_bridge import TimmBackbone
from .timm_layers import own_name
from .weight_sources import read_weights, source_input

_CLASSIFIER = ("fc.", "classifier.", "head.")
_COUNTER, _OFFSET = "num_batches_tracked", ".offset."


def load_backbone_weights(backbone: Backbone, source: str | os.PathLike[str]) -> str:
    """Load a checkpoint's trunk; returns a line that says what was loaded and what was left.

    ``source`` is

    - a file: ``.safetensors``, or ``.pth`` that holds tensors only; also the ``model.safetensors`` of a checkpoint of
      ours, whose backbone is taken;
    - ``torchvision/NAME`` for a member of torchvision's weights (``torchvision/IMAGENET1K_V1``);
    - ``timm`` for timm's default weights of a model of this name, ``timm/TAG`` for others (``timm/a1_in1k``), and
      ``timm/MODEL.TAG`` for those of a model that timm calls by another name (``timm/resnet50_gn.a1h_in1k``);
    - ``vertebra/shapes_resnet10t``, which comes with the package.

    The classifier is dropped, and so are stages that this backbone was built without. A first convolution for another
    number of channels gets the sum over red, green and blue (one channel), or their repetition scaled to the same
    total (others), as in timm. Anything else that is missing, unexpected, of another shape or not finite is a
    :class:`CheckpointError`. How the weights want their pixels becomes ``backbone.input``: load them before the
    backbone goes into a ``Model``, which reads it when it is made.
    """
    source = os.fspath(source)
    of_timm = isinstance(backbone, TimmBackbone)
    weights = read_weights(source, backbone.config.name, backbone.options if of_timm else None)
    own = backbone.state_dict()
    tensors = _trunk(weights.tensors)
    if of_timm:
        tensors = {own_name(name, own): tensor for name, tensor in tensors.items()}
    else:
        tensors = _with_input_channels(tensors, backbone)
    stages = {name.partition(".")[0] for name in own}
    faults = state_dict_problems(
        tensors,
        own,
        # Counters exist only where statistics are collected, and where to look is learned from the start.
        may_lack=lambda name: name.endswith(_COUNTER) or _OFFSET in name,
        may_have=lambda name: of_timm or _may_be_left(name, stages),
    )
    loaded = {name: tensor for name, tensor in tensors.items() if name in own}
    if faults or not loaded:
        raise CheckpointError(
            f"does not fit this backbone: {join_first(faults) or 'no tensor has a name of it'}",
            "is it of another model?",
            file=source,
        )
    backbone.load_state_dict(loaded, strict=False)
    backbone.input = _fitting(weights.input, backbone.input)
    return f"{source}: {_summary(tensors, own, others=len(weights.tensors) - len(tensors))}"


def weights_input(config: BackboneConfig, source: str | os.PathLike[str] | None) -> InputConfig:
    """How a backbone wants its pixels with the weights of a source; nothing is loaded or downloaded."""
    own = config.input()
    return own if source is None else _fitting(source_input(os.fspath(source), config.name), own)


def _fitting(wanted: InputConfig | None, own: InputConfig) -> InputConfig:
    """What weights want, unless they do not say or the backbone has another number of input channels."""
    return own if wanted is None or len(wanted.mean) != len(own.mean) else wanted


def _trunk(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The backbone's tensors out of a whole model's of ours; those of others as they are."""
    prefix = "backbone."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return own or tensors


def _with_input_channels(tensors: Mapping[str, Tensor], backbone: Backbone) -> Mapping[str, Tensor]:
    """The first convolution's weights for the backbone's own number of input channels."""
    name, first = next((name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d))
    key = f"{name}.weight"
    if key not in tensors or tensors[key].shape[1] != 3 or first.in_channels == 3:
        return tensors
    from timm.models import adapt_input_conv

    return {**tensors, key: adapt_input_conv(first.in_channels, tensors[key])}


def _may_be_left(name: str, stages: set[str]) -> bool:
    """Whether a checkpoint's tensor that the backbone lacks is no fault."""
    unbuilt = name.startswith("layer") and name.partition(".")[0] not in stages
    return name.startswith(_CLASSIFIER) or unbuilt or name.endswith(_COUNTER)


def _summary(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], others: int) -> str:
    """How many tensors came, how many of which part were left, and what starts anew."""
    left = Counter(
        "batch counters" if name.endswith(_COUNTER) else name.partition(".")[0] for name in tensors.keys() - own.keys()
    )
    if others:
        left["other parts of the model"] = others
    said = [f"loaded {len(tensors.keys() & own.keys())} tensors"]
    said += [f"left {', '.join(f'{part} ({count})' for part, count in sorted(left.items()))}"] if left else []
    anew = sum(_OFFSET in name for name in own.keys() - tensors.keys())
    said += [f"{anew} of deformable convolutions start anew"] if anew else []
    return "; ".join(said)
