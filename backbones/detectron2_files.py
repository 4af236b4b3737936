"""Backbones in files of detectron2 and of Caffe2: their tensor names, pixel normalization and style.

detectron2 publishes ImageNet weights as pickles: MSRA's ResNets and FAIR's ResNeXts with the names of Caffe2's blobs
(``res2_0_branch2a_w``), and torchvision's ResNets with its own names (``res2.0.conv1.weight``). The files do not state
the pixels and the position of the stride. Both follow from what is known of these networks: MSRA's ResNets have the
stride in the first 1x1 convolution of a bottleneck, and ResNeXts and networks with group norm in the 3x3 convolution.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..ops import FrozenBatchNorm2d
from ..structures import DETECTRON2_INPUT, DETECTRON2_INPUT_WITH_STD, CheckpointError, InputConfig
from .pickle_files import PickleError, read_pickled_state_dict
from .weight_files import WeightsMetadata, unreadable_file
from .weight_style import guess_style

_STEM = re.compile(r"(?:stem\.|res_)?conv1(?P<norm>[._](?:norm|bn|gn))?[._](?P<value>\w+)")
_BLOCK = re.compile(
    r"res(?P<stage>[2-5])[._](?P<block>\d+)[._](?P<layer>conv[123](?:_offset)?|shortcut|branch1|branch2[abc])"
    r"(?P<norm>[._](?:norm|bn|gn))?[._](?P<value>\w+)"
)
_CLASSIFIER = re.compile(r"(?:stem\.fc|linear|pred|fc1000)[._](?P<value>\w+)")
_PREFIXES = ("backbone.bottom_up.", "backbone.")
_VALUES = {"w": "weight", "s": "weight", "gamma": "weight", "b": "bias", "beta": "bias", "rm": "running_mean"}
_VALUES |= {"riv": "running_var"}
_LAYERS = {"branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3", "branch1": "shortcut"}


def read_pickled_backbone(path: Path) -> tuple[Mapping[str, Tensor], WeightsMetadata]:
    """Read a pickle with a backbone of detectron2 or Caffe2; return its tensors by Vertebra's names, and its metadata.

    Raises CheckpointError if the file cannot be read.
    """
    try:
        tensors, author = read_pickled_state_dict(path)
    except (OSError, PickleError) as error:
        raise unreadable_file(path, error) from None
    renamed = rename_detectron2_backbone(tensors)
    metadata = _metadata(renamed, author, tensors)
    fused = "conv1_w" in tensors and not _has_group_norm(tensors)
    return (_with_statistics(renamed) if fused else renamed), metadata


def rename_detectron2_backbone(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return a state dict with Vertebra's names for the ResNet of detectron2 or Caffe2; any other one is unchanged.

    The backbone of a complete model keeps the prefix ``backbone.``; the neck's tensors lose it.
    """
    prefix = next((prefix for prefix in (*_PREFIXES, "") if _has_resnet(tensors, prefix)), None)
    if prefix is None:
        return tensors
    renamed = {}
    for name, tensor in tensors.items():
        new = _rename(name.removeprefix(prefix)) if name.startswith(prefix) else None
        new_name = name.removeprefix("backbone.") if new is None else f"backbone.{new}" if prefix else new
        if new_name in renamed:
            raise CheckpointError(f"two tensors stand for {new_name}; the second is {name}")
        renamed[new_name] = tensor
    return renamed


def _has_resnet(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    return any(f"{prefix}{name}" in tensors for name in ("res2.0.conv1.weight", "conv1_w"))


def _rename(name: str) -> str | None:
    """Return Vertebra's name of a tensor of a ResNet; None for any other tensor."""
    if found := _STEM.fullmatch(name):
        return f"{'bn1' if found['norm'] else 'conv1'}.{_value(found)}"
    if found := _CLASSIFIER.fullmatch(name):
        return f"fc.{_value(found)}"
    if (found := _BLOCK.fullmatch(name)) is None:
        return None
    layer = _LAYERS.get(found["layer"], found["layer"])
    if layer == "shortcut":
        layer = f"downsample.{1 if found['norm'] else 0}"
    elif found["norm"]:
        layer = layer.replace("conv", "bn")
    return f"layer{int(found['stage']) - 1}.{found['block']}.{layer.replace('_', '.')}.{_value(found)}"


def _value(found: re.Match[str]) -> str:
    """Return the last part of a name: ``weight``, ``bias`` or a statistic."""
    return _VALUES.get(found["value"], found["value"])


def _metadata(tensors: Mapping[str, Tensor], author: str, names: Iterable[str]) -> WeightsMetadata:
    """Return the pixels and the style of a network with Vertebra's names; ``names`` are those in its file."""
    if author == "torchvision":
        return WeightsMetadata(InputConfig(), "pytorch")
    names = list(names)
    guess = guess_style(tensors) or "caffe"  # without statistics it is one of the first Detectron's networks
    pixels = DETECTRON2_INPUT if guess == "caffe" else DETECTRON2_INPUT_WITH_STD
    if "conv1_w" not in names:  # trained with detectron2, whose configs leave both open
        return WeightsMetadata(pixels if guess == "caffe" else None)
    filters = tensors.get("layer1.0.conv2.weight")
    has_groups = filters is not None and filters.shape[0] != filters.shape[1]
    return WeightsMetadata(pixels, "pytorch" if has_groups or _has_group_norm(names) else "caffe")


def _has_group_norm(names: Iterable[str]) -> bool:
    return any("_gn_" in name for name in names)


def _with_statistics(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with statistics of batch norms for norms that Caffe2 has fused to a scale and a shift."""
    completed = dict(tensors)
    for name, weight in tensors.items():
        norm, _, value = name.rpartition(".")
        if value == "weight" and weight.ndim == 1 and f"{norm}.running_mean" not in tensors:
            completed[f"{norm}.running_mean"] = torch.zeros_like(weight)
            completed[f"{norm}.running_var"] = torch.full_like(weight, 1 - FrozenBatchNorm2d(1).eps)
    return completed
