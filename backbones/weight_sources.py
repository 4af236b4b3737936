"""Where pretrained weights come from: files, and torchvision's and timm's own download and cache."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import torch
from safetensors import safe_open
from torch import Tensor

from ..structures import CheckpointError, InputConfig, suggest
from .timm_bridge import PREFIX
from .timm_probe import first_line

_SHIPPED = Path(__file__).parent / "pretrained"
_INPUT = "vertebra.input"  # the key of a .safetensors file's metadata


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A state dict, and how it wants its pixels, where the source says so."""

    tensors: Mapping[str, Tensor]
    input: InputConfig | None


def read_weights(source: str, name: str, timm_options: Mapping[str, Any] | None) -> Weights:
    """What ``source`` holds for the network ``name``; see :func:`vertebra.backbones.load_backbone_weights`.

    ``timm_options`` are timm's arguments for a model of its own: timm makes weights fit them. The result then is the
    whole model's state dict; but for a model of ours, which comes as it is.
    """
    kind, entry = parse_source(source)
    if kind == "torchvision":
        return _from_torchvision(entry, name)
    if kind == "timm":
        return _from_timm(entry, name, timm_options or {})
    weights = _from_file(source_path(source))
    if timm_options is None or any(key.startswith("backbone.") for key in weights.tensors):
        return weights
    return Weights(_through_timm(weights.tensors, name, timm_options, source), weights.input)


def source_input(source: str, name: str) -> InputConfig | None:
    """How the weights of a source want their pixels, without loading them; None where nothing says."""
    kind, entry = parse_source(source)
    if kind == "torchvision":
        return _input_of(find_torchvision_member(entry, name).transforms())
    if kind == "timm":
        return _input_of(find_timm_config(entry, name))
    return _file_input(source_path(source))


def input_metadata(pixels: InputConfig) -> dict[str, str]:
    """What a .safetensors file says of how its weights want their pixels."""
    return {_INPUT: json.dumps(pixels.model_dump())}


def list_weights(name: str) -> list[str]:
    """The sources by which torchvision and timm know pretrained weights for a network of this name."""
    import timm
    from torchvision.models import get_model_weights, list_models

    known = [f"torchvision/{member.name}" for member in get_model_weights(name)] if name in list_models() else []
    model = name.removeprefix(PREFIX)
    return known + [f"timm/{tagged.partition('.')[2]}" for tagged in timm.list_pretrained(f"{model}.*")]


def parse_source(source: str) -> tuple[Literal["torchvision", "timm", "file"], str]:
    """Whose weights these are, and their name there."""
    library, slash, entry = source.partition("/")
    if library == "timm":
        return "timm", entry
    return ("torchvision", entry) if library == "torchvision" and slash else ("file", source)


def source_path(source: str) -> Path:
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
        raise _unreadable(path, error) from None
    if not isinstance(tensors, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise CheckpointError("holds no state dict of tensors", "save model.state_dict()", file=path)
    return Weights(tensors, None)


def file_metadata(path: Path) -> dict[str, str]:
    """What a file of weights says of itself: nothing unless it is .safetensors, and anything at all if it is."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except Exception as error:
        raise _unreadable(path, error) from None


def _file_input(path: Path) -> InputConfig | None:
    text = file_metadata(path).get(_INPUT)
    try:
        return None if text is None else InputConfig.model_validate_json(text)
    except ValueError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    kind = "no such file" if isinstance(error, FileNotFoundError) else first_line(error)
    return CheckpointError(f"cannot be read: {kind}", "give .safetensors, or .pth of tensors only", file=path)


def find_torchvision_member(entry: str, name: str) -> Any:
    """A member of torchvision's weights, by its whole name or by its name among the network's own."""
    from torchvision.models import get_model_weights, get_weight

    try:
        member: Any = get_weight(entry) if "." in entry else get_model_weights(name)[entry]
    except (ValueError, AttributeError, KeyError):
        known = [source.partition("/")[2] for source in list_weights(name) if source.startswith("torchvision/")]
        raise CheckpointError(
            f"torchvision has no weights {entry!r} for {name}", suggest(entry, known), file=f"torchvision/{entry}"
        ) from None
    if not hasattr(member.transforms(), "mean"):
        raise CheckpointError("are no classifier's weights", "take a classifier's", file=f"torchvision/{entry}")
    return member


def _from_torchvision(entry: str, name: str) -> Weights:
    member = find_torchvision_member(entry, name)
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name
    try:
        tensors = member.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except (URLError, OSError) as error:
        raise CheckpointError(
            f"{member.url} could not be downloaded: {error}", "download it elsewhere and put it here", file=place
        ) from error
    except Exception as error:  # the cache holds whatever somebody put there
        raise CheckpointError(f"cannot be read: {first_line(error)}", "delete it", file=place) from None
    return Weights(tensors, _input_of(member.transforms()))


def find_timm_config(tag: str, name: str) -> Any:
    """timm's description of the weights ``tag`` (nothing: its default) of a model; of another one's as MODEL.TAG."""
    import timm

    model = name.removeprefix(PREFIX)
    tagged = tag if "." in tag else f"{model}.{tag}" if tag else model
    owner = tagged.partition(".")[0]
    known = timm.list_pretrained(f"{owner}.*")
    if name.startswith(PREFIX) and owner != model:
        raise CheckpointError(f"are {owner}'s weights, not {model}'s", f"create timm/{owner}", file=f"timm/{tag}")
    if not known or (tagged != model and tagged not in known):
        tags = [known_tag.partition(".")[2] for known_tag in known]
        raise CheckpointError(f"timm has no weights {tagged!r}", suggest(tag, tags), file=f"timm/{tag}")
    return timm.get_pretrained_cfg(tagged)


def _from_timm(tag: str, name: str, options: Mapping[str, Any]) -> Weights:
    import timm

    config = find_timm_config(tag, name)
    try:
        network = timm.create_model(config.architecture, pretrained=True, pretrained_cfg=config, **options)
    except OSError as error:
        raise _unreachable(config, error) from error
    except Exception as error:
        raise CheckpointError(f"timm cannot load them: {first_line(error)}", file=f"timm/{tag}") from error
    return Weights(network.state_dict(), _input_of(config))


def _through_timm(
    tensors: Mapping[str, Tensor], name: str, options: Mapping[str, Any], source: str
) -> Mapping[str, Tensor]:
    """The state dict of timm's whole model after timm has loaded these tensors, strictly, and resized what it can."""
    import timm

    model = name.removeprefix(PREFIX)
    config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    classifier = config.classifier if config is not None and isinstance(config.classifier, str) else ""
    classes = len(tensors[f"{classifier}.weight"]) if f"{classifier}.weight" in tensors else 0
    overlay = {"state_dict": dict(tensors), "num_classes": classes}
    try:
        network = timm.create_model(
            model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **options
        )
    except Exception as error:  # torch's own message lists the tensors, a line each
        said = "; ".join(line.strip() for line in str(error).splitlines()[1:4]) or first_line(error)
        raise CheckpointError(f"does not fit {model}: {said:.400}", "is it of another model?", file=source) from error
    return network.state_dict()


def _unreachable(config: Any, error: Exception) -> CheckpointError:
    """What to say where timm's download fails: what to fetch, and where it would have been."""
    import huggingface_hub.constants

    if not config.hf_hub_id:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name
        return CheckpointError(
            f"{config.url} could not be downloaded: {first_line(error)}",
            "download it elsewhere and put it here",
            file=place,
        )
    address = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{config.hf_hub_id.replace('/', '--')}"
    return CheckpointError(
        f"{address} could not be downloaded and is not in the cache: {first_line(error)}",
        "download it elsewhere and give its path as the weights",
        file=cache,
    )


def _input_of(statistics: Any) -> InputConfig:
    return InputConfig(mean=tuple(statistics.mean), std=tuple(statistics.std))
