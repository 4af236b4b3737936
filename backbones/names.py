"""Names of backbones: the prefix of timm's models, and suggestions for a name that nobody knows."""

import difflib
import re
from collections.abc import Iterable

TIMM_PREFIX = "timm/"

_SIZES = {
    "n": "nano", "t": "tiny", "s": "small", "m": "medium", "b": "base", "l": "large", "xl": "xlarge", "h": "huge",
}  # fmt: skip
"""What torchvision's one-letter sizes are called in timm."""

_LIST_COMMAND = "list them with `vertebra list backbones` and `vertebra list backbones 'timm/*'`"


def suggest_backbones(name: str, known: Iterable[str]) -> str:
    """Return the advice for an unknown name of a backbone: the nearest of ``known`` and of timm's models.

    It understands names from timm without the prefix (``convnext_tiny``), with a tag (``resnet50.a1_in1k``), and from
    torchvision (``swin_t``).
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
    """Return the names of timm's models that are most like ``model``, those with pretrained weights first.

    Names that begin alike once sizes are spelled out (``swin_t`` and ``swin_tiny_patch4_window7_224``) come before
    names that are merely spelled alike.
    """
    import timm

    wanted = _spell_out(model)
    spelled = {name: _spell_out(name) for name in timm.list_models()}
    pretrained = {name.partition(".")[0] for name in timm.list_pretrained()}
    alike = [name for name, words in spelled.items() if words.startswith(wanted)]
    if alike:
        return sorted(alike, key=lambda name: (name not in pretrained, len(name), name))[:count]
    by_words = {words: name for name, words in spelled.items()}
    return [by_words[words] for words in difflib.get_close_matches(wanted, by_words, n=count, cutoff=0.7)]


def _spell_out(name: str) -> str:
    """Return a name as one word with its size in full: ``vit_b_16`` and ``vit_base_patch16`` become ``vitbase16``."""
    parts = re.split(r"[^a-z0-9]+", name.lower())
    return "".join(_SIZES.get(part, part.removeprefix("patch")) for part in parts)
