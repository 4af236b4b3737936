"""What every configuration object is: frozen, validated, and without room for a misspelt key."""

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen value whose fields are checked when it is made; an unknown field is an error, never a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PartConfig(Config):
    """The hyper-parameters of one part that a registry can build; ``name`` says which."""

    name: str


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of an error text for an unknown word: the nearest known one, or all of them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "known: " + (", ".join(known) or "none")
