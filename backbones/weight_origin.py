"""Where weights come from, and on what terms they may be used: facts that travel with what is trained from them."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from .weight_sources import file_metadata, find_timm_config, find_torchvision_member, parse_source, source_path

UNKNOWN = "unknown"
_IMAGENET = "trained on ImageNet, whose images are for non-commercial research"
_IMAGENET_TAGS = re.compile(r"in\d+k|imagenet", re.IGNORECASE)
_ORIGIN = "vertebra.origin"  # the key of a .safetensors file's metadata


@dataclass(frozen=True, slots=True)
class Origin:
    """What the source of weights says of them. It is no legal advice."""

    source: str
    """As a config names it."""
    licence: str = UNKNOWN
    address: str = UNKNOWN
    """Where they were published."""

    def through(self, run: str) -> "Origin":
        """The origin of what was trained in a run from these weights."""
        return Origin(f"{run}, which began with {self.source}", self.licence, self.address)


def weights_origin(source: str, name: str) -> Origin:
    """The origin of a source of weights for the network ``name``; see ``load_backbone_weights``. Nothing is loaded.

    CheckpointError where there is no such source.
    """
    kind, entry = parse_source(source)
    if kind == "torchvision":
        facts = find_torchvision_member(entry, name).meta
        licence = facts.get("license", "BSD-3-Clause (torchvision)")
        return Origin(source, f"{licence}; {_IMAGENET}", facts.get("recipe", UNKNOWN))
    if kind == "timm":
        config = find_timm_config(entry, name)
        licence = config.license or UNKNOWN
        if _IMAGENET_TAGS.search(config.tag or ""):
            licence = f"{licence}; {_IMAGENET}"
        address = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        return Origin(source, licence, address or UNKNOWN)
    metadata = file_metadata(source_path(source))
    if _ORIGIN in metadata:
        return _parse(metadata[_ORIGIN]).through(source)
    if source.startswith("vertebra/"):
        return Origin(source, "Apache-2.0; trained on pictures that Vertebra drew")
    return Origin(source, metadata.get("license", UNKNOWN))


def origin_metadata(origin: Origin | None) -> dict[str, str]:
    """What a .safetensors file says of where its weights began; nothing where that is random."""
    return {} if origin is None else {_ORIGIN: json.dumps(asdict(origin))}


def _parse(text: str) -> Origin:
    """Other people's files may say anything."""
    try:
        values: Any = dict(json.loads(text))
    except (ValueError, TypeError):
        values = {}
    return Origin(*(str(values.get(key, UNKNOWN)) for key in ("source", "licence", "address")))
