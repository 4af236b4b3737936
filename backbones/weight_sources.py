"""Where pretrained weights come from: files, and torchvision's and timm's own download and cache."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors import safe_open
from torch import Tensor

from ..structures import CheckpointError, InputConfig, suggest

_SHIPPED = Path(__file__).parent / "pretrained"
_INPUT = "input"  # the key of a .safetensors file's metadata that holds its InputConfig


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A state dict, and how it wants its pixels, where the source says so."""

    tensors: Mapping[str, Tensor]
    input: InputConfig | None


def read_weights(source: str, name: str, options: Mapping[str, Any]) -> Weights:
    """What ``source`` holds for the network ``name``; see :func:`vertebra.backbones.load_backbone_weights`.

    ``options`` are timm's arguments for it: timm makes its weights fit them.
    """
    library, slash, entry = source.partition("/")
    if library == "torchvision" and slash:
        return _from_torchvision(entry, name)
    if source == "timm" or library == "timm":
        return _from_timm(entry, name, options)
    return _from_file(_path(source))


def source_input(source: str, name: str) -> InputConfig | None:
    """How the weights of a source want their pixels, without loading them; None where nothing says."""
    library, slash, entry = source.partition("/")
    if library == "torchvision" and slash:
        return _input_of(_torchvision_member(entry, name).transforms())
    if source == "timm" or library == "timm":
        return _input_of(_timm_config(entry, name))
    return _file_input(_path(source))


def list_weights(name: str) -> list[str]:
    """The sources by which torchvision and timm know pretrained weights for a network of this name."""
    import timm
    from torchvision.models import get_model_weights, list_models

    known = [f"torchvision/{member.name}" for member in get_model_weights(name)] if name in list_models() else []
    model = name.removeprefix("timm/")
    return known + [f"timm/{tagged.partition('.')[2]}" for tagged in timm.list_pretrained(f"{model}.*")]


def _timm_config(tag: str, name: str) -> Any:
    """timm's description of the weights ``tag`` (nothing: its default) of a model; of another one's as MODEL.TAG."""
    import timm

    model = name.removeprefix("timm/")
    tagged = tag if "." in tag else f"{model}.{tag}" if tag else model
    known = timm.list_pretrained(f"{tagged.partition('.')[0]}.*")
    config = timm.get_pretrained_cfg(model, allow_unregistered=True) if tagged == model else None
    if tagged in known:
        config = timm.get_pretrained_cfg(tagged)
    if config is None or not known:
        tags = [name.partition(".")[2] for name in known]
        raise CheckpointError(f"timm has no weights {tagged!r}", suggest(tag, tags), file=f"timm/{tag}")
    return config


def _unreachable(config: Any, error: Exception) -> CheckpointError:
    """What to say where timm's download fails: what to fetch, and where it would have been."""
    import huggingface_hub.constants

    if not config.hf_hub_id:
        return CheckpointError(f"{config.url or config.architecture} could not be had: {_first_line(error)}")
    address = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{config.hf_hub_id.replace('/', '--')}"
    return CheckpointError(
        f"{address} could not be downloaded and is not in the cache: {_first_line(error)}",
        "download it elsewhere and give its path as the weights",
        file=cache,
    )


def _path(source: str) -> Path:
    if source.startswith("vertebra/"):
        return _SHIPPED / f"{source.removeprefix('vertebra/')}.safetensors"
    return Path(source)


def _from_file(path: Path) -> Weights:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return Weights({key: file.get_tensor(key) for key in file.keys()}, _file_input(path))  # noqa: SIM118
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a reader raises whatever it meets in a damaged or hostile file
        kind = "no such file" if isinstance(error, FileNotFoundError) else _first_line(error)
        raise CheckpointError(
            f"cannot be read: {kind}", "give .safetensors, or .pth of tensors only", file=path
        ) from None
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError("holds no state dict of tensors", "save model.state_dict()", file=path)
    return Weights(tensors, None)


def _file_input(path: Path) -> InputConfig | None:
    """The statistics in a .safetensors file's metadata; our own checkpoints have them."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_INPUT)
    except Exception as error:
        kind = "no such file" if isinstance(error, FileNotFoundError) else _first_line(error)
        raise CheckpointError(f"cannot be read: {kind}", file=path) from None
    return None if text is None else InputConfig.model_validate(json.loads(text))


def _torchvision_member(entry: str, name: str) -> Any:
    """A member of torchvision's weights, by its whole name or by its name among the network's own."""
    from torchvision.models import get_model_weights, get_weight

    try:
        return get_weight(entry) if "." in entry else get_model_weights(name)[entry]
    except (ValueError, AttributeError, KeyError):
        known = [source.partition("/")[2] for source in list_weights(name) if source.startswith("torchvision/")]
        raise CheckpointError(
            f"torchvision has no weights {entry!r} for {name}", suggest(entry, known), file=f"torchvision/{entry}"
        ) from None


def _from_torchvision(entry: str, name: str) -> Weights:
    member = _torchvision_member(entry, name)
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name
    try:
        tensors = member.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        raise CheckpointError(
            f"{member.url} could not be downloaded: {error}", "download it elsewhere and put it here", file=place
        ) from error
    return Weights(tensors, _input_of(member.transforms()))


def _from_timm(tag: str, name: str, options: Mapping[str, Any]) -> Weights:
    import timm

    config = _timm_config(tag, name)
    try:
        network = timm.create_model(config.architecture, pretrained=True, pretrained_cfg=config, **options)
    except (OSError, RuntimeError) as error:
        raise _unreachable(config, error) from error
    return Weights(network.state_dict(), _input_of(config))


def _input_of(statistics: Any) -> InputConfig:
    return InputConfig(mean=tuple(statistics.mean), std=tuple(statistics.std))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
