"""Pretrained weights into a backbone: from a file, or through torchvision's and timm's own download and cache."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..structures import CheckpointError
from .base import Backbone

_SHIPPED = Path(__file__).parent / "pretrained"
_CLASSIFIER = ("fc.", "classifier.", "head.")


def load_backbone_weights(backbone: Backbone, source: str | os.PathLike[str]) -> str:
    """Load an ImageNet checkpoint's trunk; returns a line that says what was loaded and what was left.

    ``source`` is a file (``.safetensors``, or ``.pth`` that holds tensors only), ``torchvision/NAME`` for a member of
    torchvision's weights (``torchvision/ResNet50_Weights.IMAGENET1K_V1``), or ``vertebra/shapes_resnet10t``, which
    comes with the package (``tools/pretrain_shapes.py`` made it).

    The classifier is dropped, and so are stages that this backbone was built without. Anything else that is missing,
    unexpected or of another shape is a :class:`CheckpointError`.
    """
    source = os.fspath(source)
    if source.startswith("torchvision/"):
        tensors = _from_torchvision(source.removeprefix("torchvision/"))
    elif source.startswith("vertebra/"):
        tensors = _from_file(_SHIPPED / f"{source.removeprefix('vertebra/')}.safetensors")
    else:
        tensors = _from_file(Path(source))
    own = backbone.state_dict()
    stages = {name.partition(".")[0] for name in own}
    unwanted = {
        name
        for name in tensors.keys() - own.keys()
        if name.startswith(_CLASSIFIER)
        or (name.startswith("layer") and name.partition(".")[0] not in stages)
        or name.endswith("num_batches_tracked")
    }
    # Counters of batches exist only where statistics are still collected, and no checkpoint depends on them.
    missing = {name for name in own.keys() - tensors.keys() if not name.endswith("num_batches_tracked")}
    unexpected = tensors.keys() - own.keys() - unwanted
    wrong = [
        f"{name} has shape {tuple(tensors[name].shape)}, wanted {tuple(own[name].shape)}"
        for name in sorted(own.keys() & tensors.keys())
        if tensors[name].shape != own[name].shape
    ]
    faults = [f"{name} is missing" for name in sorted(missing)]
    faults += [f"{name} is unexpected" for name in sorted(unexpected)]
    faults += wrong
    loaded = {name: tensor for name, tensor in tensors.items() if name in own}
    if faults or not loaded:
        shown = "; ".join(faults[:6]) + (f" and {len(faults) - 6} more" if len(faults) > 6 else "")
        raise CheckpointError(
            f"does not fit this backbone: {shown or 'no tensor has a name of it'}",
            "is it of another model?",
            file=source,
        )
    backbone.load_state_dict(loaded, strict=False)
    return f"{source}: loaded {len(loaded)} tensors, left {len(unwanted)} (classifier, stages not built, counters)"


def _from_file(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a reader raises whatever it meets in a damaged or hostile file
        kind = "no such file" if isinstance(error, FileNotFoundError) else str(error).partition("\n")[0]
        raise CheckpointError(
            f"cannot be read: {kind}", "give .safetensors, or .pth of tensors only", file=path
        ) from None
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError("holds no state dict of tensors", "save model.state_dict()", file=path)
    return tensors


def _from_torchvision(name: str) -> Mapping[str, Tensor]:
    from torchvision.models import get_weight

    try:
        weights = get_weight(name)
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"torchvision has no weights named {name!r}: {error}") from error
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        raise CheckpointError(
            f"{weights.url} could not be downloaded: {error}", "download it elsewhere and put it here", file=place
        ) from error
