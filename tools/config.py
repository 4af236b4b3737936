"""Print a resolved config: each field with its value, the source of the value, and the field's description."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import config_argument, set_option

if TYPE_CHECKING:
    from vertebra.structures import Config

WIDTH = 100


class Field(NamedTuple):
    """One field of a resolved config."""

    path: str
    value: Any
    source: str
    """Where the value came from: ``default``, ``config file`` or ``--set``."""
    description: str


@click.command(
    "config",
    context_settings=CONTEXT,
    short_help="Print a resolved config, or copy a shipped one.",
    epilog="""\b
    Examples:
      vertebra config quickstart
      vertebra config quickstart --set recipe.batch_size=4 --json > mine.json
      vertebra config quickstart --copy mine.py""",
)
@config_argument("name")
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, which vertebra train accepts as a config file.")
@click.option(
    "--copy",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instead, copy the shipped config to this new Python file, to edit and train it from any folder.",
)
def command(name: str, assignments: tuple[str, ...], as_json: bool, copy: Path | None) -> None:
    """Print a resolved config: every field with its value, where the value came from, and what the field means.

    NAME is the name of a shipped config (see vertebra list configs), a config file, or a run's config.json.
    """
    if copy is not None:
        if assignments or as_json:
            raise click.UsageError("--copy copies the file unchanged: leave out --set and --json, and edit the copy")
        copy_config(name, copy)
        click.echo(f"{copy}: a copy of {name}; train it with vertebra train {copy}")
        return
    from vertebra.configs import load_config
    from vertebra.engine import override

    config = override(load_config(name), assignments)
    if as_json:
        click.echo(config.model_dump_json(indent=2))
        return
    keys = [assignment.partition("=")[0].strip() for assignment in assignments]
    for field in list_fields(config, keys):
        click.echo(f"{click.style(field.path, bold=True)} = {field.value!r}  # {field.source}")
        if field.description:
            click.echo(textwrap.indent(textwrap.fill(field.description, WIDTH), "    "))


def copy_config(name: str, target: Path) -> None:
    """Copy a shipped config to a new file; raise UsageError if ``target`` exists or does not end in ``.py``."""
    from vertebra.configs import find_shipped_config
    from vertebra.structures import UsageError

    source = find_shipped_config(name)
    if target.suffix != ".py":
        raise UsageError("a config is a Python file", "give a name that ends in .py", file=target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise UsageError("this file exists already", "choose another name, or delete the file", file=target) from None


def list_fields(config: "Config", changed: Sequence[str], prefix: str = "") -> Iterator[Field]:
    """Yield every field of a config and of its nested configs, in order.

    ``changed`` holds the dotted paths that ``--set`` changed.
    """
    from vertebra.structures import Config

    descriptions = read_field_notes(type(config))
    for name in type(config).model_fields:
        path, value = f"{prefix}{name}", getattr(config, name)
        parts = value if isinstance(value, dict) else {"": value}
        if parts and all(isinstance(part, Config) for part in parts.values()):
            for key, part in parts.items():
                yield from list_fields(part, changed, f"{path}.{key}.".replace("..", "."))
            continue
        source = "default"
        if name in config.model_fields_set:
            is_changed = any(_is_below(path, key) or _is_below(key, path) for key in changed)
            source = "--set" if is_changed else "config file"
        yield Field(path, value, source, descriptions.get(name, ""))


def _is_below(path: str, prefix: str) -> bool:
    """Return whether a dotted path equals ``prefix`` or begins with it."""
    return path == prefix or path.startswith(f"{prefix}.")


def read_field_notes(config_type: "type[Config]") -> dict[str, str]:
    """Return the docstrings below the fields of a config type and of its base classes, by field, each on one line."""
    from vertebra.structures import Config

    notes: dict[str, str] = {}
    for base in reversed(config_type.__mro__):
        if not (issubclass(base, Config) and base.__module__ != Config.__module__):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # no source file: the class was defined in an interactive session
            continue
        definition = ast.parse(source).body[0]
        assert isinstance(definition, ast.ClassDef), "the source of a class begins with its definition"
        for statement, following in zip(definition.body, definition.body[1:], strict=False):
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
                continue
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                notes[statement.target.id] = " ".join(str(following.value.value).split())
    return notes


if __name__ == "__main__":
    raise SystemExit(run_command(command))
