"""Reading weights files: their tensors, and the metadata that Vertebra stores in .safetensors files."""

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
from .pickle_files import read_pickled_state_dict
from .resnet import ResNetConfig
from .timm_probe import first_line
from .variants import Style

UNKNOWN = "unknown"

_KEY = "vertebra"
"""The single metadata key of a file. safetensors writes several keys in random order, so that files with equal weights
would differ."""


@dataclass(frozen=True, slots=True)
class WeightsOrigin:
    """The origin and license of weights as stated by their publisher; not legal advice."""

    source: str
    """The source or path, as written in a config."""
    license: str = UNKNOWN
    url: str = UNKNOWN
    """Where the weights were published."""

    def trained_further(self, path: str) -> "WeightsOrigin":
        """Return the origin of the weights at ``path``, which were trained from these."""
        return WeightsOrigin(f"{path}, which was trained from {self.source}", self.license, self.url)


@dataclass(frozen=True, slots=True)
class WeightsMetadata:
    """The facts that a file states about its weights; None if it does not state a fact."""

    input: InputConfig | None = None
    style: Style | None = None
    origin: WeightsOrigin | None = None


def weights_metadata(input: InputConfig, config: BackboneConfig, origin: WeightsOrigin | None) -> dict[str, str]:
    """Return the metadata to save in a .safetensors file with the weights of a backbone or model.

    They hold the pixel normalization, the style of a ResNet, and the origin of the initial weights; ``origin`` is None
    if these were random.
    """
    facts = {
        "input": input.model_dump(mode="json"),
        "style": config.style if isinstance(config, ResNetConfig) else None,
        "origin": None if origin is None else asdict(origin),
    }
    return {_KEY: json.dumps(facts, sort_keys=True)}


def read_weights_metadata(path: Path) -> WeightsMetadata:
    """Read the facts that a file states about its weights; a file that Vertebra did not write states none.

    Raises CheckpointError if the file cannot be read.
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
    """Read the raw metadata of a .safetensors file; empty for a file in another format."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:  # readers raise various errors for damaged files
        raise unreadable_file(path, error) from None


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file, a ``.pkl`` file, or a ``torch.save`` file of a plain state dict.

    No code in the file is run. Raises CheckpointError if the file cannot be read or is not a state dict.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if path.suffix == ".pkl":
            return read_pickled_state_dict(path)[0]
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers raise various errors for damaged or malicious files
        raise unreadable_file(path, error) from None
    if not isinstance(tensors, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise CheckpointError("this is not a state dict of tensors", "save model.state_dict()", file=path)
    return tensors


def unreadable_file(path: Path, error: Exception) -> CheckpointError:
    """Return the CheckpointError for a weights file whose reader raised ``error``."""
    return CheckpointError(
        f"cannot be read: {first_line(error)}",
        "use a .safetensors file, or a .pth or .pkl file that holds only tensors",
        file=path,
    )
