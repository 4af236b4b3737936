"""Arguments and options that several commands share, so that one thing has one name everywhere."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

CONFIGS = Path(__file__).parent.parent / "configs"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def complete_config(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of shipped configs that begin with ``incomplete``, or what makes a shell complete files."""
    names = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")
    items = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return items or [CompletionItem(incomplete, type="file")]


def config_argument(name: str = "config") -> Decorator:
    """Return the decorator that adds the argument for a config: a file, or the name of a shipped one."""
    return click.argument(name, metavar=name.upper(), shell_complete=complete_config)


run_argument: Decorator = click.argument("run", metavar="RUN", type=click.Path())

set_option: Decorator = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a field of the config; may be given several times.",
)

device_option: Decorator = click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda", "mps")),
    default="auto",
    help="Where the model runs: auto is a CUDA GPU if there is one, otherwise the CPU; mps is Apple's GPU.",
)

import_option: Decorator = click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="MODULE_OR_FILE",
    help="Import this module or Python file, with parts of your own, first; may be given several times.",
)

bad_data_option: Decorator = click.option(
    "--bad-data",
    type=click.Choice(("error", "skip")),
    show_default="as the config says",
    help="Stop at images or annotations that cannot be used, or leave them out and count them.",
)


def integer_option(flag: str, default: int | None, text: str, least: int = 1, most: int | None = None) -> Decorator:
    """Return the decorator that adds an option for a whole number from ``least`` to ``most``."""
    return click.option(flag, type=click.IntRange(least, most), default=default, metavar="N", help=text)


def parse_fraction(text: str) -> float:
    """Return the number from 0 to 1 that ``text`` spells; raise BadParameter for anything else, NaN included."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise click.BadParameter(f"{text!r} is no number from 0 to 1")
    return value
