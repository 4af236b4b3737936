"""Names of backbones: the prefix of timm's models, and suggestions for unknown names."""

import difflib
import re
from collections.abc import Iterable

TIMM_PREFIX = "timm/"

_SIZES = {
    "n": "nano", "t": "tiny", "s": "small", "m": "medium", "b": "base", "l": "large", "xl": "xlarge", "h": "huge",
}  # fmt: skip
"""timm's names for torchvision's one-letter model sizes."""

_LIST_COMMAND = "list them with `vertebra list backbones` and `vertebra list backbones 'timm/*'`"


def suggest_backbones(name: str, known: Iterable[str]) -> str:
    """Return a suggestion for an unknown backbone name: the nearest names in ``known`` and among timm's models.

    It recognizes names of timm without the prefix (``convnext_tiny``) or with a tag (``resnet50.a1_in1k``), and names
    of torchvision (``swin_t``).
    """
    import timm

    known = set(known)
    model, _, tag = name.lower().removeprefix(TIMM_PREFIX).partition(".")
    weights = f" with weights='timm/{tag}'" if tag else ""
    if model in known:
        return f"did you mean {model!r}{weights}?"
    if timm.is_model(model):
        return f"did you mean '{TIMM_PREFIX}{model}'{weights}?"
    nearest = difflib.get_close_matches(model, sorted(known), n=3, cutoff=0.75)
    if not nearest:
        nearest = [f"{TIMM_PREFIX}{other}" for other in nearest_timm_models(model)]
    return f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else _LIST_COMMAND


def nearest_timm_models(model: str, count: int = 3) -> list[str]:
    """Return the names of timm's models that are most similar to ``model``, models with pretrained weights first.

    If names begin with ``model`` after sizes are spelled out (``swin_tiny_patch4_window7_224`` for ``swin_t``), only
    these are returned; otherwise names with similar spelling.
    """
    import timm

    query = _spell_out(model)
    spelled = {name: _spell_out(name) for name in timm.list_models()}
    pretrained = {name.partition(".")[0] for name in timm.list_pretrained()}
    matches = [name for name, full_name in spelled.items() if full_name.startswith(query)]
    if matches:
        return sorted(matches, key=lambda name: (name not in pretrained, len(name), name))[:count]
    by_full_name = {full_name: name for name, full_name in spelled.items()}
    return [by_full_name[full_name] for full_name in difflib.get_close_matches(query, by_full_name, count, 0.7)]


def _spell_out(name: str) -> str:
    """Return a name without separators, with its size in full: ``vitbase16`` for ``vit_b_16``."""
    parts = re.split(r"[^a-z0-9]+", name.lower())
    return "".join(_SIZES.get(part, part.removeprefix("patch")) for part in parts)
