"""Configs as Python source: only the fields that differ from their defaults, with comments, in a file to edit."""

import importlib
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...structures import Config
from ..user_code import is_installed

WIDTH = 120
INDENT = "    "


def value_source(value: Any) -> str:
    """Return a Python expression, on one line, for a config or a value of one."""
    if isinstance(value, Config):
        fields = ", ".join(f"{name}={value_source(item)}" for name, item in changed_fields(value).items())
        return f"{type(value).__name__}({fields})"
    if isinstance(value, Path):
        return f'Path("{value.as_posix()}")' if '"' not in str(value) else f"Path({value.as_posix()!r})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{value_source(key)}: {value_source(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        items = ", ".join(map(value_source, value))
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_source, value)) + "]"
    if isinstance(value, str) and '"' not in value and "\\" not in value and value.isprintable():
        return f'"{value}"'
    return repr(value)


def changed_fields(config: Config) -> dict[str, Any]:
    """Return the fields of a config whose values are not the defaults of its type, in their order."""
    return {
        name: getattr(config, name)
        for name, field in type(config).model_fields.items()
        if field.is_required() or getattr(config, name) != field.get_default(call_default_factory=True)
    }


def config_file_source(config: Config, docstring: str, comments: Mapping[str, str]) -> str:
    """Return the source of a Python file that defines ``CONFIG``, equal to ``config``.

    ``comments`` holds comments by the dotted path of a field; each is written above its field.
    """
    text = "\n".join(textwrap.fill(line, WIDTH) for line in _escape(docstring).split("\n"))
    source = "\n".join(_lines(config, "", comments))
    return "\n".join([f'"""{text}', '"""', "", *_imports(config), "", f"CONFIG = {source}", ""])


def _escape(text: str) -> str:
    """Return text as it is written in a docstring, which the names of files and classes in it must not end."""
    return "\n".join(map(_printable, text.split("\n"))).replace("\\", "\\\\").replace('"', "'")


def _printable(text: str) -> str:
    """Return text with spaces in place of characters that cannot be printed, such as line breaks."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _lines(value: Any, path: str, comments: Mapping[str, str]) -> list[str]:
    """Return the source of a value as lines: one line if it is short and has no comments, otherwise one per item."""
    short, depth = value_source(value), len(INDENT) * len(path.split("."))
    fits = len(short) + len(path.rpartition(".")[2]) + depth + 2 <= WIDTH
    opening, items, closing = _parts(value)
    if not items:
        return [short]
    lines, has_comments = [opening], False
    for prefix, name, item in items:
        inner = f"{path}.{name}".lstrip(".")
        if inner in comments:
            lines += [f"{INDENT}# {line}" for line in textwrap.wrap(_printable(comments[inner]), WIDTH - depth - 6)]
        first, *rest = _lines(item, inner, comments)
        block = [f"{prefix}{first}", *rest]
        has_comments |= inner in comments or any(line.lstrip().startswith("# ") for line in rest)
        block[-1] += ","
        lines += [f"{INDENT}{line}" for line in block]
    return [short] if fits and not has_comments else [*lines, closing]


def _parts(value: Any) -> tuple[str, list[tuple[str, str, Any]], str]:
    """Return how the source of a value begins, (text before it, name in a path, value) of each item, and its end."""
    if isinstance(value, Config):
        fields = [(f"{name}=", name, item) for name, item in changed_fields(value).items()]
        return f"{type(value).__name__}(", fields, ")"
    if isinstance(value, Mapping):
        return "{", [(f"{value_source(key)}: ", str(key), item) for key, item in value.items()], "}"
    if isinstance(value, tuple):
        return "(", [("", str(index), item) for index, item in enumerate(value)], ")"
    return "", [], ""


def _imports(config: Config) -> list[str]:
    """Return the import statements for the types in a config, the standard library first."""
    names: dict[str, set[str]] = {}
    has_paths = False
    for value in _values_in(config):
        has_paths |= isinstance(value, Path)
        if isinstance(value, Config):
            names.setdefault(_public_module(type(value)), set()).add(type(value).__name__)
    lines = ["from pathlib import Path", ""] if has_paths else []
    if files := [file for module in sorted(names) if (file := _user_file(module)) is not None]:
        lines += ["from vertebra.inference import import_user_code", ""]
        lines += [f"import_user_code({value_source(file)})" for file in files]
    for module in sorted(names):
        line = f"from {module} import {', '.join(sorted(names[module], key=str.lower))}"
        if len(line) > WIDTH:
            line = "\n".join(
                [f"from {module} import (", *(f"{INDENT}{name}," for name in sorted(names[module], key=str.lower)), ")"]
            )
        lines.append(line)
    return lines


def _user_file(module: str) -> str | None:
    """Return the path of a user's module from the current folder; None for a module that is installed."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None or module.startswith("vertebra.") or is_installed(Path(file)) else os.path.relpath(file)


def _values_in(value: Any) -> Iterator[Any]:
    """Yield a value and all values that are written in its source."""
    yield value
    if isinstance(value, Config):
        items: Any = changed_fields(value).values()
    elif isinstance(value, Mapping):
        items = [*value.keys(), *value.values()]
    else:
        items = value if isinstance(value, tuple | list) else ()
    for item in items:
        yield from _values_in(item)


def _public_module(config_type: type[Config]) -> str:
    """Return the shortest module that exports a type: ``vertebra.heads`` for ``vertebra.heads.rpn``."""
    words = config_type.__module__.split(".")
    for end in range(1, len(words)):
        module = ".".join(words[:end])
        if end > 1 and getattr(importlib.import_module(module), config_type.__name__, None) is config_type:
            return module
    return config_type.__module__
