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
from .pickled_objects import PLACEHOLDERS, refused_object
from .resnet import ResNetConfig
from .timm_probe import first_line
from .variants import Style
from .wrappers import UnwrappedWeights, unwrap_state_dict

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


def weights_metadata(
    input: InputConfig, config: BackboneConfig, origin: WeightsOrigin | None, **facts: Any
) -> dict[str, str]:
    """Return the metadata to save in a .safetensors file with the weights of a backbone or model.

    They hold the pixel normalization, the style of a ResNet, the origin of the initial weights (``origin`` is None if
    these were random), and further ``facts`` as JSON values.
    """
    facts |= {
        "input": input.model_dump(mode="json"),
        "style": config.style if isinstance(config, ResNetConfig) else None,
        "origin": None if origin is None else asdict(origin),
    }
    return {_KEY: json.dumps(facts, sort_keys=True)}


def read_weights_metadata(path: Path) -> WeightsMetadata:
    """Read the facts that a file states about its weights; a file that Vertebra did not write states none.

    Raises CheckpointError if the file cannot be read.
    """
    facts = read_facts(path)
    try:
        style, origin = facts.get("style"), facts.get("origin")
        return WeightsMetadata(
            input=None if facts.get("input") is None else InputConfig.model_validate(facts["input"]),
            style=style if style in get_args(Style) else None,
            origin=None if origin is None else _parse_origin(origin),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise unreadable_file(path, error) from None


def read_facts(path: Path) -> dict[str, Any]:
    """Read the JSON values that Vertebra stored in a file's metadata; empty for a file that it did not write."""
    text = read_header(path).get(_KEY)
    try:
        facts = {} if text is None else json.loads(text)
        if isinstance(facts, dict):
            return facts
    except ValueError as error:
        raise unreadable_file(path, error) from None
    raise unreadable_file(path, ValueError("its metadata are not a JSON object"))


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
    """Read the tensors of a weights file; :func:`read_weights_file` also says what was around them."""
    return read_weights_file(path).tensors


def read_weights_file(path: Path) -> UnwrappedWeights:
    """Read the state dict of a ``.safetensors``, ``.pkl`` or ``torch.save`` file, such as another library's checkpoint.

    :func:`vertebra.backbones.unwrap_state_dict` finds it. No code in the file is run and nothing is imported for it.
    Raises CheckpointError if the file cannot be read or has no state dict.
    """
    try:
        return unwrap_state_dict(_read_value(path))
    except CheckpointError as error:
        raise CheckpointError(error.what, error.fix, file=path) from None
    except Exception as error:  # readers raise various errors for damaged or malicious files
        raise unreadable_file(path, error) from None


def _read_value(path: Path) -> Any:
    """Return what a file holds; objects of ``PLACEHOLDERS`` are empty, and any other object that is not data raises."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if path.suffix == ".pkl":
        return read_pickled_state_dict(path)[0]
    with torch.serialization.safe_globals(PLACEHOLDERS):
        return torch.load(path, map_location="cpu", weights_only=True)


def unreadable_file(path: Path, error: Exception) -> CheckpointError:
    """Return the CheckpointError for a weights file whose reader raised ``error``."""
    if (name := refused_object(error)) is not None:
        return CheckpointError(
            f"cannot be read: it holds {name}, which could run code", "save model.state_dict() alone", file=path
        )
    return CheckpointError(
        f"cannot be read: {first_line(error)}",
        "use a .safetensors file, or a .pth or .pkl file that holds only tensors",
        file=path,
    )
