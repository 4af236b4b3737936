"""Files of weights: their tensors, and what a .safetensors file of Vertebra's states about them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import safe_open
from torch import Tensor

from ..structures import CheckpointError, InputConfig
from .base import BackboneConfig
from .resnet import ResNetConfig
from .timm_probe import first_line
from .variants import Style

UNKNOWN = "unknown"

_KEY = "vertebra"
"""The one metadata key of a file. safetensors writes several keys in random order, and then equal weights would not
give equal bytes."""


@dataclass(frozen=True, slots=True)
class WeightsOrigin:
    """Where weights come from and on what terms, as their source states it. It is no legal advice."""

    source: str
    """The source or path, as a config names it."""
    license: str = UNKNOWN
    url: str = UNKNOWN
    """Where the weights were published."""

    def trained_further(self, path: str) -> "WeightsOrigin":
        """Return the origin of the weights at ``path``, which were trained from these."""
        return WeightsOrigin(f"{path}, which began with {self.source}", self.license, self.url)


@dataclass(frozen=True, slots=True)
class WeightsMetadata:
    """The facts that a file states about its weights; None where it does not say."""

    input: InputConfig | None = None
    style: Style | None = None
    origin: WeightsOrigin | None = None


def weights_metadata(input: InputConfig, config: BackboneConfig, origin: WeightsOrigin | None) -> dict[str, str]:
    """Return the metadata to save with the weights of a backbone or model in a .safetensors file.

    It states how the weights expect their pixels, the style of a ResNet, and where the weights began; ``origin`` is
    None for weights that were random at the start.
    """
    facts = {
        "input": input.model_dump(mode="json"),
        "style": config.style if isinstance(config, ResNetConfig) else None,
        "origin": None if origin is None else asdict(origin),
    }
    return {_KEY: json.dumps(facts, sort_keys=True)}


def read_weights_metadata(path: Path) -> WeightsMetadata:
    """Read what a file states about its weights. Files that Vertebra did not write state nothing.

    Raises CheckpointError where the file cannot be read.
    """
    text = read_header(path).get(_KEY)
    if text is None:
        return WeightsMetadata()
    try:
        facts = json.loads(text)
        style, origin = facts.get("style"), facts.get("origin")
        return WeightsMetadata(
            input=None if facts.get("input") is None else InputConfig.model_validate(facts["input"]),
            style=style if style in get_args(Style) else None,
            origin=None if origin is None else _parse_origin(origin),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise unreadable_file(path, error) from None


def _parse_origin(facts: Mapping[str, Any]) -> WeightsOrigin:
    return WeightsOrigin(*(str(facts.get(field, UNKNOWN)) for field in ("source", "license", "url")))


def read_header(path: Path) -> dict[str, str]:
    """Read the metadata of a .safetensors file as it stands there; empty for a file of another format."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:  # a reader raises whatever it meets in a damaged file
        raise unreadable_file(path, error) from None


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file, or of a file by ``torch.save`` that holds tensors only.

    No code in the file is run. Raises CheckpointError where it cannot be read or is no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a reader raises whatever it meets in a damaged or hostile file
        raise unreadable_file(path, error) from None
    if not isinstance(tensors, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise CheckpointError("holds no state dict of tensors", "save model.state_dict()", file=path)
    return tensors


def unreadable_file(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a file of weights that could not be read because of ``error``."""
    return CheckpointError(
        f"cannot be read: {first_line(error)}", "give .safetensors, or .pth of tensors only", file=path
    )
