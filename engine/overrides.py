"""Overriding config fields from the command line: ``--set KEY=VALUE``."""

import ast
import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

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
        if key in keys:
            raise UsageError(f"--set: {key} is set twice", "leave one of them out")
        keys.add(key)
        _add_change(changes, config, key.split("."), text)
    try:
        return config.replace(**changes)
    except ValidationError as error:
        raise usage_error_from_validation("--set", error) from None


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
        is_replaced = below.get("name", getattr(value, "name", None)) != getattr(value, "name", None)
        _add_change(below, None if is_replaced else value, rest, text, f"{parent}.{name}".lstrip("."))
    elif value is None:
        _add_unchecked(changes.setdefault(name, {}), rest, text)
    elif isinstance(value, dict):
        _add_item(changes.setdefault(name, dict(value)), rest, text)
    else:
        raise UsageError(
            f"--set: {name} has no fields, so {'.'.join(rest)} cannot be set in it", "set the field itself"
        )


def _add_item(values: dict[Any, Any], path: Sequence[str], text: str) -> None:
    """Set an item of a dict field: a field of an existing config in the dict, or else the item with the dotted key."""
    item = values.get(path[0])
    if isinstance(item, Config) and len(path) > 1:
        change: dict[str, Any] = {}
        _add_change(change, item, path[1:], text, path[0])
        values[path[0]] = item.replace(**change)
    else:
        values[".".join(path)] = _parse_literal(text)


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
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
