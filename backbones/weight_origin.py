"""Where pretrained weights come from and on what terms they may be used, as their publishers state it."""

import re

from .weight_files import UNKNOWN, WeightsOrigin, read_header, read_weights_metadata
from .weight_sources import find_timm_config, find_torchvision_member, parse_source, source_path

_IMAGENET = "trained on ImageNet, whose images are for non-commercial research"
_IMAGENET_TAGS = re.compile(r"in\d+k|imagenet", re.IGNORECASE)


def weights_origin(source: str, name: str) -> WeightsOrigin:
    """Find the origin of the weights ``source`` for the network ``name``; nothing is loaded or downloaded.

    ``source`` is what :func:`load_backbone_weights` takes. Raises CheckpointError where there is no such source.
    """
    library, entry = parse_source(source)
    if library == "torchvision":
        facts = find_torchvision_member(entry, name).meta
        license = facts.get("license", "BSD-3-Clause (torchvision)")
        return WeightsOrigin(source, f"{license}; {_IMAGENET}", facts.get("recipe", UNKNOWN))
    if library == "timm":
        config = find_timm_config(entry, name)
        license = config.license or UNKNOWN
        if _IMAGENET_TAGS.search(config.tag or ""):
            license = f"{license}; {_IMAGENET}"
        url = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        return WeightsOrigin(source, license, url or UNKNOWN)
    path = source_path(source, name)
    origin = read_weights_metadata(path).origin
    if origin is not None:
        return origin.trained_further(source)
    if source.startswith("vertebra/"):
        return WeightsOrigin(source, "Apache-2.0; trained on pictures that Vertebra drew")
    return WeightsOrigin(source, read_header(path).get("license", UNKNOWN))
