"""What every configuration object is: frozen, validated, and without room for a misspelt key."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import UsageError


class Config(BaseModel):
    """A frozen value whose fields are checked when it is made; an unknown field is an error, never a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class PartConfig(Config):
    """The hyper-parameters of one part that a registry can build; ``name`` says which."""

    name: str


@contextlib.contextmanager
def value_errors_as_usage_errors() -> Iterator[None]:
    """Where parts are built from a config, what one of them refuses (ValueError) is a mistake in that config."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"the config cannot be built: {error}") from error


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of an error text for an unknown word: the nearest known one, or all of them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    return "known: " + (", ".join(known) or "none")


def usage_error_from_validation(source: str, config: type[Config], error: ValidationError) -> UsageError:
    """pydantic's complaints about a config in one line: where, what is wrong, what came; the nearest field's name."""
    faults, fix = [], ""
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"]) or "it"
        if fault["type"] == "extra_forbidden":
            faults.append(f"there is no field {where!r}")
            fix = fix or (suggest(where, config.model_fields) if len(fault["loc"]) == 1 else "")
        elif fault["type"] == "value_error":  # a check of our own, whose text says all
            faults.append(f"{where}: {fault['msg'].removeprefix('Value error, ')}")
        else:
            faults.append(f"{where}: {fault['msg'].lower()}, got {fault['input']!r:.80}")
    return UsageError(f"{source}: {'; '.join(faults)}", fix)
