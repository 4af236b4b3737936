"""Changes of a config that a command line makes: ``--set KEY=VALUE``."""

import ast
import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ..structures import Config, UsageError, suggest, usage_error_from_validation
from .config import ExperimentConfig


def override(config: ExperimentConfig, assignments: Sequence[str]) -> ExperimentConfig:
    """Return the config with ``KEY=VALUE`` assignments applied, as ``--set`` takes them.

    A key is a dotted path to a field (``recipe.optimizer.lr``). In a field that is a dict, the rest of the path is the
    key, and a new one is added (``recipe.optimizer.lr_multipliers.head.mask=0.1``). Setting a part's ``name`` to that
    of another kind of part gives that part with its defaults. A value is JSON or a Python literal where the field takes
    that, and otherwise text.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set needs KEY=VALUE, got {assignment!r}", "for example --set recipe.optimizer.lr=0.01")
        _add_change(changes, config, key.strip().split("."), text)
    try:
        return config.replace(**changes)
    except ValidationError as error:
        raise usage_error_from_validation("--set", error) from None


def _add_change(changes: dict[str, Any], node: Config | None, path: Sequence[str], text: str, parent: str = "") -> None:
    """Add one assignment to ``changes``, the nested mapping that :meth:`Config.replace` takes.

    ``node`` is the config that the path starts in, None below a part that an earlier assignment replaces.
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
    """Set one item of a dict field: a field of an item that is a config, or the item that the whole path names."""
    item = values.get(path[0])
    if isinstance(item, Config) and len(path) > 1:
        change: dict[str, Any] = {}
        _add_change(change, item, path[1:], text, path[0])
        values[path[0]] = item.replace(**change)
    else:
        values[".".join(path)] = _parse_literal(text)


def _add_unchecked(changes: dict[str, Any], path: Sequence[str], text: str) -> None:
    """Set a field of a part that is built anew, whose config type checks it later."""
    for name in path[:-1]:
        changes = changes.setdefault(name, {})
    changes[path[-1]] = _parse_literal(text)


def _parse_value(text: str, field: FieldInfo) -> Any:
    """Return the value that ``text`` stands for in a config field: a literal if the field takes it, otherwise text."""
    literal = _parse_literal(text)
    adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
    for candidate in (literal, text):
        try:
            adapter.validate_python(candidate)
            return candidate
        except ValidationError:
            continue
    return literal  # the error that it raises in its place names the field


def _parse_literal(text: str) -> Any:
    """Return the JSON value or Python literal that ``text`` spells, or the text itself."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
