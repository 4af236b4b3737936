"""Overriding config fields from the command line: ``--set KEY=VALUE``."""

import ast
import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ..formats import RepeatedKeyError, require_unique_keys
from ..structures import Config, UsageError, suggest, usage_error_from_validation
from .config import ExperimentConfig


def override(config: ExperimentConfig, assignments: Sequence[str]) -> ExperimentConfig:
    """Return the config with ``KEY=VALUE`` assignments (the values of ``--set``) applied.

    A key is a dotted path to a field (``recipe.optimizer.lr``). Below a field that is a dict, the rest of the path is
    the dict's key, which may be new (``recipe.optimizer.lr_multipliers.head.mask=0.1``). Changing the ``name`` of a
    part (``model.neck.name=bifpn``) replaces it by that part with its defaults. A value is parsed as JSON or a Python
    literal if the field accepts that, and otherwise used as text. Raises UsageError for an unknown field or an invalid
    value.
    """
    changes: dict[str, Any] = {}
    keys: set[str] = set()
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals:
            raise UsageError(f"--set needs KEY=VALUE, got {assignment!r}", "for example --set recipe.optimizer.lr=0.01")
        for other in keys:
            _require_no_conflict(config, key, other)
        keys.add(key)
        _add_change(changes, config, key.split("."), text)
    try:
        return config.replace(**changes)
    except ValidationError as error:
        raise usage_error_from_validation("--set", error) from None


def _require_no_conflict(config: ExperimentConfig, key: str, other: str) -> None:
    """Raise UsageError if two assignments set the same field, or a field and a part of it."""
    if key == other:
        raise UsageError(f"--set: {key} is set twice", "leave one of them out")
    outer, inner = sorted((key, other), key=len)
    if not inner.startswith(f"{outer}."):
        return
    *parents, name = outer.split(".")
    holder: Any = config
    for parent in parents:
        holder = holder.get(parent) if isinstance(holder, dict) else getattr(holder, parent, None)
    # The keys of a dict may have dots: lr_multipliers.head and lr_multipliers.head.mask are two items.
    if not isinstance(holder, dict) or isinstance(holder.get(name), Config):
        raise UsageError(f"--set: {outer} is set as a whole, and {inner} too", "put them into one assignment")


def _add_change(changes: dict[str, Any], node: Config | None, path: Sequence[str], text: str, parent: str = "") -> None:
    """Add one assignment to ``changes``, a nested mapping for :meth:`Config.replace`.

    ``path`` starts in the config ``node``; None stands for a part that an earlier assignment replaces, whose fields
    are not known yet.
    """
    name, rest = path[0], path[1:]
    if node is None:
        _add_unchecked(changes, path, text)
        return
    fields = type(node).model_fields
    if name not in fields:
        raise UsageError(f"--set: there is no field {name!r} in {parent or 'the config'}", suggest(name, fields))
    value = getattr(node, name)
    if not rest:
        changes[name] = _parse_value(text, fields[name])
    elif isinstance(value, Config):
        below = changes.setdefault(name, {})
        node = None if _is_other_part(value, below) else value
        _add_change(below, node, rest, text, f"{parent}.{name}".lstrip("."))
    elif value is None:
        _add_unchecked(changes.setdefault(name, {}), rest, text)
    elif isinstance(value, dict):
        _add_item(changes.setdefault(name, dict(value)), rest, text)
    else:
        raise UsageError(
            f"--set: {name} has no fields, so {'.'.join(rest)} cannot be set in it", "set the field itself"
        )


def _add_item(values: dict[Any, Any], path: Sequence[str], text: str) -> None:
    """Set an item of a dict field: a field of a config in the dict, or else the item with the dotted key."""
    name, rest = path[0], path[1:]
    item = values.get(name)
    if not rest or not any(isinstance(value, Config) for value in values.values()):
        values[".".join(path)] = _parse_literal(text)
    elif isinstance(item, Config):
        change: dict[str, Any] = {}
        _add_change(change, item, rest, text, name)
        try:
            values[name] = change if _is_other_part(item, change) else item.replace(**change)
        except ValidationError as error:
            raise usage_error_from_validation(f"--set: {name}", error) from None
    else:  # a new part, or one that an earlier assignment replaces
        _add_unchecked(values.setdefault(name, {}), rest, text)


def _is_other_part(part: Config, change: dict[str, Any]) -> bool:
    """Return whether a change gives a part another name, and so replaces it."""
    name = getattr(part, "name", None)
    return change.get("name", name) != name


def _add_unchecked(changes: dict[str, Any], path: Sequence[str], text: str) -> None:
    """Set a field of a replaced part; :meth:`Config.replace` validates it later."""
    for name in path[:-1]:
        changes = changes.setdefault(name, {})
    changes[path[-1]] = _parse_literal(text)


def _parse_value(text: str, field: FieldInfo) -> Any:
    """Parse ``text`` for a config field: as a literal if the field accepts it, otherwise as a string."""
    literal = _parse_literal(text)
    adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
    for candidate in (literal, text):
        try:
            adapter.validate_python(candidate)
            return candidate
        except ValidationError:
            continue
    return literal  # invalid: validation of the complete config raises an error that names the field


def _parse_literal(text: str) -> Any:
    """Parse ``text`` as JSON or as a Python literal; return the text itself if it is neither."""
    for parse in (_parse_json, ast.literal_eval):
        try:
            return parse(text)
        except RepeatedKeyError as error:
            raise UsageError(f"--set: {error}", "leave one of them out") from None
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=require_unique_keys)
