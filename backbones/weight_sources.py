"""Sources of pretrained weights: files, and torchvision and timm, whose own downloads and caches are used."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import torch
from torch import Tensor

from ..structures import CheckpointError, InputConfig, suggest
from .detectron2_files import read_pickled_backbone, rename_detectron2_backbone
from .names import TIMM_PREFIX, nearest_timm_models
from .timm_probe import first_line
from .variants import Style
from .weight_files import WeightsMetadata, read_weights_file, read_weights_metadata

_SHIPPED = Path(__file__).parent / "pretrained"


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A state dict, with the pixel normalization and the style that its source states; None if it does not.

    ``removed`` says what the file had around the state dict, as :class:`UnwrappedWeights` does.
    """

    tensors: Mapping[str, Tensor]
    input: InputConfig | None
    style: Style | None
    removed: tuple[str, ...] = ()


def read_weights(source: str, name: str, timm_options: Mapping[str, Any] | None) -> Weights:
    """Read the weights ``source`` for the network ``name``; :func:`load_backbone_weights` lists the sources.

    ``timm_options`` holds the keyword arguments with which a timm model was created; None for other networks. timm
    then adapts the weights to the model (for example, it resizes positional embeddings), and the result is the state
    dict of the complete timm model. A Vertebra checkpoint, whose keys begin with ``backbone.``, is not adapted.
    """
    library, entry = parse_source(source)
    if library == "torchvision":
        return _from_torchvision(entry, name)
    if library == "timm":
        return _from_timm(entry, name, timm_options or {})
    path = source_path(source, name)
    removed: tuple[str, ...] = ()
    if path.suffix == ".pkl":
        tensors, metadata = read_pickled_backbone(path)
    else:
        file, metadata = read_weights_file(path), read_weights_metadata(path)
        tensors, removed = rename_detectron2_backbone(file.tensors), file.removed
    if timm_options is not None and not any(key.startswith("backbone.") for key in tensors):
        tensors = _fit_to_timm_model(tensors, name, timm_options, source)
    return Weights(tensors, metadata.input, metadata.style, removed)


def read_source_metadata(source: str, name: str) -> WeightsMetadata:
    """Return the metadata of the weights ``source`` for the network ``name``, without loading or downloading them."""
    library, entry = parse_source(source)
    if library == "torchvision":
        return WeightsMetadata(_statistics_of(find_torchvision_member(entry, name).transforms()), "pytorch")
    if library == "timm":
        return WeightsMetadata(_statistics_of(find_timm_config(entry, name)), "pytorch")
    path = source_path(source, name)
    return read_pickled_backbone(path)[1] if path.suffix == ".pkl" else read_weights_metadata(path)


def list_weights(name: str) -> list[str]:
    """Return the sources of pretrained weights for the network ``name`` in torchvision and timm."""
    import timm
    from torchvision.models import get_model_weights, list_models

    sources = [f"torchvision/{member.name}" for member in get_model_weights(name)] if name in list_models() else []
    model = name.removeprefix(TIMM_PREFIX)
    return sources + [f"timm/{tagged.partition('.')[2]}" for tagged in timm.list_pretrained(f"{model}.*")]


def suggest_weights(source: str, name: str) -> str:
    """Return a suggestion for a source of weights that does not exist: the nearest sources for the network ``name``.

    It recognizes names without the library (``IMAGENET1K_V2``, ``a1_in1k``) and full names
    (``ResNet50_Weights.IMAGENET1K_V2``, ``resnet50.a1_in1k``).
    """
    sources = list_weights(name) + [f"vertebra/{path.stem}" for path in sorted(_SHIPPED.glob(f"*{name}.safetensors"))]
    entries = {known_source.partition("/")[2].lower(): known_source for known_source in sources}
    word = source.rpartition("/")[2].rpartition(".")[2].lower()
    nearest = [entries[entry] for entry in difflib.get_close_matches(word, entries, n=3, cutoff=0.6)]
    if word in entries:
        nearest = [entries[word]]
    if nearest:
        return f"did you mean {' or '.join(map(repr, nearest))}?"
    examples = f", such as {', '.join(map(repr, sources[:3]))}" if sources else ""
    return f"give the path of a file, or a source{examples} (list all with `vertebra list backbones {name}`)"


def parse_source(source: str) -> tuple[Literal["torchvision", "timm", "file"], str]:
    """Split a source into the library that publishes the weights and their name there, or ("file", ``source``)."""
    library, slash, entry = source.partition("/")
    if library == "timm":
        return "timm", entry
    return ("torchvision", entry) if library == "torchvision" and slash else ("file", source)


def source_path(source: str, name: str) -> Path:
    """Return the path of a source that is a file or ships with the package (``vertebra/...``).

    Raises CheckpointError, suggesting the nearest sources for the network ``name``, if the file does not exist.
    """
    path = Path(source).expanduser()
    if source.startswith("vertebra/"):
        path = _SHIPPED / f"{source.removeprefix('vertebra/')}.safetensors"
    if not path.exists():
        raise CheckpointError("no such file or source of weights", suggest_weights(source, name), file=source)
    return path


def find_torchvision_member(entry: str, name: str) -> Any:
    """Find torchvision's weights for the network ``name`` by the name of the enum member, or by ``ENUM.MEMBER``."""
    from torchvision.models import get_model_weights, get_weight

    source = f"torchvision/{entry}"
    try:
        member: Any = get_weight(entry) if "." in entry else get_model_weights(name)[entry]
    except (ValueError, AttributeError, KeyError):
        raise CheckpointError(
            f"torchvision has no weights {entry!r} for {name}", suggest_weights(entry, name), file=source
        ) from None
    if not hasattr(member.transforms(), "mean"):
        raise CheckpointError(
            "these are not weights of a classifier", "choose weights of a classifier for a backbone", file=source
        )
    return member


def _from_torchvision(entry: str, name: str) -> Weights:
    member = find_torchvision_member(entry, name)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(member.url).name
    try:
        tensors = member.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except (URLError, OSError) as error:
        raise CheckpointError(
            f"{member.url} could not be downloaded: {error}",
            "download it elsewhere and save it to this path",
            file=path,
        ) from error
    except Exception as error:  # the cached file may be damaged
        raise CheckpointError(f"cannot be read: {first_line(error)}", "delete it", file=path) from None
    return Weights(tensors, _statistics_of(member.transforms()), "pytorch")


def find_timm_config(tag: str, name: str) -> Any:
    """Find timm's config of pretrained weights for the network ``name``.

    ``tag`` is a tag of that model, ``MODEL.TAG`` for weights that timm lists under another model, or empty for timm's
    default weights. Raises CheckpointError if timm has no such weights.
    """
    import timm

    model, source = name.removeprefix(TIMM_PREFIX), f"timm/{tag}"
    tagged = tag if "." in tag else f"{model}.{tag}" if tag else model
    owner = tagged.partition(".")[0]
    if name.startswith(TIMM_PREFIX) and owner != model:
        raise CheckpointError(
            f"these are weights of {owner}, not of {model}", f"create timm/{owner} instead", file=source
        )
    published = timm.list_pretrained(f"{owner}.*")
    if published and (tagged == model or tagged in published):
        return timm.get_pretrained_cfg(tagged)
    if published:
        fix = suggest(tag.rpartition(".")[2], [tagged_name.partition(".")[2] for tagged_name in published])
    elif timm.is_model(owner):
        fix = suggest_weights(tag, name)
    else:
        fix = suggest(owner, nearest_timm_models(owner))
    raise CheckpointError(f"timm has no weights {tagged!r}", fix, file=source)


def _from_timm(tag: str, name: str, options: Mapping[str, Any]) -> Weights:
    import timm

    config = find_timm_config(tag, name)
    try:
        network = timm.create_model(config.architecture, pretrained=True, pretrained_cfg=config, **options)
    except OSError as error:
        raise _download_error(config, error) from error
    except Exception as error:
        raise _loading_error(f"timm/{tag}", error) from error
    return Weights(network.state_dict(), _statistics_of(config), "pytorch")


def _loading_error(source: str, error: Exception) -> CheckpointError:
    """Return the CheckpointError for weights that timm could not load, if the cause is not a failed download."""
    import huggingface_hub
    import timm
    from timm.models._hub import has_hf_hub

    if has_hf_hub():
        return CheckpointError(f"timm cannot load them: {first_line(error)}", file=source)
    return CheckpointError(
        f"timm {timm.__version__} cannot use huggingface_hub {huggingface_hub.__version__} to download them",
        "upgrade timm, or install an older huggingface_hub",
        file=source,
    )


def _fit_to_timm_model(
    tensors: Mapping[str, Tensor], name: str, options: Mapping[str, Any], source: str
) -> Mapping[str, Tensor]:
    """Load tensors strictly into the complete timm model, where timm resizes some, and return its state dict."""
    import timm

    model = name.removeprefix(TIMM_PREFIX)
    config = timm.get_pretrained_cfg(model, allow_unregistered=True)
    classifier = config.classifier if config is not None and isinstance(config.classifier, str) else ""
    classes = len(tensors[f"{classifier}.weight"]) if f"{classifier}.weight" in tensors else 0
    overlay = {"state_dict": dict(tensors), "num_classes": classes}
    try:
        network = timm.create_model(
            model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **options
        )
    except Exception as error:  # torch's message lists the mismatches by type from the second line
        mismatches = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        detail = mismatches or first_line(error)
        fix = "check that these weights belong to this model"
        raise CheckpointError(f"does not fit {model}: {detail:.400}", fix, file=source) from error
    return network.state_dict()


def _download_error(config: Any, error: Exception) -> CheckpointError:
    """Return the CheckpointError for a failed download by timm, with the URL and the path in the cache."""
    import huggingface_hub.constants

    if not config.hf_hub_id:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name
        return CheckpointError(
            f"{config.url} could not be downloaded: {first_line(error)}",
            "download it elsewhere and save it to this path",
            file=path,
        )
    url = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{config.hf_hub_id.replace('/', '--')}"
    return CheckpointError(
        f"{url} could not be downloaded and is not in the cache: {first_line(error)}",
        "download it elsewhere and use its path as the weights",
        file=cache,
    )


def _statistics_of(published: Any) -> InputConfig:
    """Return the pixel normalization in torchvision's transforms or in timm's config of weights."""
    return InputConfig(mean=tuple(published.mean), std=tuple(published.std))
