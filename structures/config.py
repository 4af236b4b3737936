"""Config objects: frozen, validated pydantic models. The error for an unknown field suggests the closest name."""

import contextlib
import difflib
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from .errors import UsageError

ConfigType = TypeVar("ConfigType", bound="Config")

UnitInterval = Annotated[float, Field(ge=0, le=1)]
"""The type of a field that holds a number from 0 to 1: a fraction, a probability, an IoU."""
NonNegative = Annotated[float, Field(ge=0)]
"""The type of a field that holds a number that is not negative."""


class Config(BaseModel):
    """Base class of all configs: a frozen pydantic model whose fields are checked at construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            unknown = [str(name) for name in values if name not in cls.model_fields]
            if unknown:
                hints = [f"there is no field {name!r}; {suggest(name, cls.model_fields)}" for name in unknown]
                raise PydanticCustomError("unknown_field", "{message}", {"message": "; ".join(hints)})
        return values

    @field_validator("*", mode="after")
    @classmethod
    def _expand_home_folder(cls, value: Any) -> Any:
        """Replace ``~`` at the start of a path by the home folder, as a shell would have done."""
        try:
            return value.expanduser() if isinstance(value, Path) else value
        except RuntimeError as error:
            raise ValueError(f"{value}: there is no such home folder") from error

    @field_serializer("*", mode="wrap", when_used="json")
    def _write_paths_with_slashes(self, value: Any, serialize: Callable[[Any], Any]) -> Any:
        """Write a path with forward slashes, so that a config written on Windows can be read elsewhere."""
        return value.as_posix() if isinstance(value, Path) else serialize(value)

    def replace(self: ConfigType, **changes: Any) -> ConfigType:
        """Return a validated copy with the given fields changed.

        If a field holds a config, a mapping changes only the nested fields it names, at any depth:
        ``config.replace(recipe={"batch_size": 4})``. A ``name`` that belongs to another config type replaces the part,
        and its other fields get their defaults: ``config.replace(model={"neck": {"name": "bifpn"}})``. To reset all
        fields of a nested config, pass a config object.

        Raises pydantic's ``ValidationError`` for an unknown field, with the closest name, or for an invalid value.
        """
        values = {name: getattr(self, name) for name in self.model_fields_set}
        for name, value in changes.items():
            current = getattr(self, name, None)
            if isinstance(current, Config) and isinstance(value, Mapping) and self._keeps_type(name, value):
                value = _replace_within(name, current, value)
            values[name] = value
        return type(self).model_validate(values)

    def _keeps_type(self, field: str, changes: Mapping[str, Any]) -> bool:
        """Return whether the config in ``field`` keeps its type under ``changes``, so that its other fields remain."""
        current = getattr(self, field)
        part_name = getattr(current, "name", None)
        new_name = changes.get("name", part_name)
        if new_name == part_name:
            return True
        part_fields = [item for item in type(self).model_fields[field].metadata if isinstance(item, PartField)]
        return bool(part_fields) and part_fields[0].config_type(new_name) is type(current)


class PartConfig(Config):
    """Hyper-parameters of a part that is built by a registry; ``name`` is its name in the registry."""

    name: str


def _replace_within(field: str, config: Config, changes: Mapping[str, Any]) -> Config:
    """Return ``config.replace(**changes)``; the locations in a ``ValidationError`` begin with ``field``."""
    try:
        return config.replace(**changes)
    except ValidationError as error:
        details: list[InitErrorDetails] = [
            {
                "type": PydanticCustomError("value_error", "{message}", {"message": _describe(problem)}),
                "loc": (field, *problem["loc"]),
                "input": problem["input"],
            }
            for problem in error.errors(include_url=False)
        ]
        raise ValidationError.from_exception_data(type(config).__name__, details) from error


def revalidate(config: ConfigType) -> ConfigType:
    """Validate a config and all configs nested in it, and return the result.

    pydantic's ``model_copy`` and ``model_construct`` do not validate; their invalid values raise ValidationError here.
    """
    values = {name: _revalidate_value(value) for name, value in vars(config).items() if name in config.model_fields_set}
    return type(config).model_validate(values)


def _revalidate_value(value: Any) -> Any:
    if isinstance(value, Config):
        return revalidate(value)
    if isinstance(value, tuple | list):
        return type(value)(_revalidate_value(item) for item in value)
    if isinstance(value, dict):
        return {key: _revalidate_value(item) for key, item in value.items()}
    return value


@dataclass(frozen=True, slots=True)
class PartField:
    """Metadata of a config field that holds a part of a registry; ``config_type`` maps part names to config types."""

    config_type: Callable[[str], type[PartConfig]]


@contextlib.contextmanager
def value_errors_as_usage_errors() -> Iterator[None]:
    """Convert a ValueError that this package raises while building parts from a config into a UsageError.

    A ValueError raised by a user's own part passes through with its traceback, since it may be a bug in that code.
    """
    try:
        yield
    except ValueError as error:
        if _is_raised_by_user_code(error):
            raise
        raise UsageError(f"the config cannot be built: {error}") from error


def _is_raised_by_user_code(error: BaseException) -> bool:
    """Return whether the innermost frame outside installed libraries belongs to neither this package nor Python."""
    package = __name__.partition(".")[0]
    libraries = tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib"))
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").partition(".")[0] == package:
            return False
        if not any(Path(frame.f_code.co_filename).is_relative_to(library) for library in libraries):
            return True
    return False


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message about an unknown word: the closest known words, or all if none is close."""
    known = sorted(known)
    nearest = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if nearest:
        return "did you mean " + " or ".join(repr(name) for name in nearest) + "?"
    return "known: " + (", ".join(known) or "none")


def usage_error_from_validation(source: str, error: ValidationError) -> UsageError:
    """Return pydantic's validation errors as one line: the location, the problem and the value of each field.

    ``source`` is the file or option that the config comes from.
    """
    problems = []
    for problem in error.errors(include_url=False):
        location = ".".join(str(key) for key in problem["loc"])
        problems.append(f"{location}: {_describe(problem)}" if location else _describe(problem))
    return UsageError(f"{source}: {'; '.join(problems)}")


def _describe(problem: ErrorDetails) -> str:
    """Return the problem of one field; the value is appended to pydantic's own messages, which do not show it."""
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("unknown_field", "value_error"):
        return message
    return f"{message[:1].lower()}{message[1:]}, got {problem['input']!r:.80}"
