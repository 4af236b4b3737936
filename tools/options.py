"""Command-line arguments and options that several commands share."""

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

CONFIGS = Path(__file__).parent.parent / "configs"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def complete_config(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the shipped configs that begin with ``incomplete``; if there are none, let the shell complete files."""
    names = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")
    items = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return items or [CompletionItem(incomplete, type="file")]


def config_argument(name: str = "config", required: bool = True) -> Decorator:
    """Return a decorator that adds an argument for a config: a file, or the name of a shipped config."""
    metavar = name.upper() if required else f"[{name.upper()}]"
    return click.argument(name, metavar=metavar, required=required, shell_complete=complete_config)


run_argument: Decorator = click.argument("run", metavar="RUN", type=click.Path())

model_argument: Decorator = click.argument("model", metavar="MODEL", type=click.Path())

like_option: Decorator = click.option(
    "--like",
    metavar="NAME",
    help="MODEL is a file of weights with the tensor names and conventions of this published model.",
)


data_format_option: Decorator = click.option(
    "--data-format",
    metavar="NAME",
    show_default="found from what lies there",
    help="The format of the data: coco, voc, yolo, ...; see docs/data.md.",
)


def _forbid_downloads(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from vertebra.models.zoo import OFFLINE

        os.environ[OFFLINE] = "1"


offline_option: Decorator = click.option(
    "--offline",
    is_flag=True,
    expose_value=False,
    callback=_forbid_downloads,
    help="Download nothing; published weights must be in the cache.",
)

set_option: Decorator = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a field of the config; can be repeated.",
)

device_option: Decorator = click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda", "mps")),
    default="auto",
    help="The device to use: auto is a CUDA GPU if there is one, otherwise the CPU; mps is Apple's GPU.",
)

optimize_option: Decorator = click.option(
    "--optimize",
    type=click.Choice(("fp32", "bf16", "auto")),
    is_flag=False,
    flag_value="auto",
    show_default="the plain model",
    help="Predict faster, after about a minute of compilation, in fp32 or bf16. auto, also used if no value is given, "
    "is bf16 on a device with units for it, otherwise fp32. Shows the differences from the plain model, and stops if "
    "they are large.",
)

import_option: Decorator = click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="MODULE_OR_FILE",
    help="First import this module or Python file, which defines custom parts; can be repeated.",
)

BAD_DATA = ("error", "skip", "skip-any")
BAD_DATA_HELP = (
    "What to do with invalid images and annotations: stop, skip and count them (an error if most are invalid), or skip "
    "any number."
)
bad_data_option: Decorator = click.option(
    "--bad-data", type=click.Choice(BAD_DATA), show_default="as in the config", help=BAD_DATA_HELP
)


def integer_option(flag: str, default: int | None, text: str, least: int = 1, most: int | None = None) -> Decorator:
    """Return a decorator that adds an option for an integer from ``least`` to ``most``; ``text`` is its help."""
    return click.option(flag, type=click.IntRange(least, most), default=default, metavar="N", help=text)


def parse_fraction(text: str) -> float:
    """Parse a number from 0 to 1; raise BadParameter for anything else, including NaN."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise click.BadParameter(f"{text!r} is not a number from 0 to 1")
    return value


def _parse_overlap(text: str) -> float:
    """Parse a number from 0 to below 1; raise BadParameter for anything else."""
    value = parse_fraction(text)
    if value == 1:
        raise click.BadParameter(f"{text!r}: tiles that overlap completely would be at one place")
    return value


def _fold(name: str, *options: Decorator) -> Decorator:
    """Return a decorator that adds options and passes their values, by name, as one dict ``name`` to the command.

    Options that are not given are left out.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def call(**values: Any) -> Any:
            folded = {key: values.pop(key) for key in [*values] if key.startswith(f"{name}_")}
            given = {key.removeprefix(f"{name}_"): value for key, value in folded.items() if value is not None}
            return command(**values, **{name: given})

        return functools.reduce(lambda function, option: option(function), reversed(options), call)

    return decorate


drawing_options: Decorator = _fold(
    "drawing",
    click.option(
        "--color-by",
        "drawing_color_by",
        type=click.Choice(("class", "object")),
        show_default="class",
        help="Give objects of a class one color, or each object its own.",
    ),
    click.option(
        "--opacity",
        "drawing_opacity",
        type=parse_fraction,
        metavar="NUMBER",
        show_default="0.5",
        help="Opacity of masks and class maps.",
    ),
    click.option(
        "--thickness",
        "drawing_thickness",
        type=click.IntRange(1),
        metavar="PIXELS",
        show_default="by the size of the image",
        help="Width of lines.",
    ),
    click.option(
        "--font",
        "drawing_font",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A font for class names that the fonts of the system cannot write.",
    ),
)
"""Add the options of pictures; the command gets those given as the dict ``drawing``."""

tile_options: Decorator = _fold(
    "tile",
    click.option(
        "--tile",
        "tile_size",
        type=click.IntRange(1),
        metavar="PIXELS",
        help="Predict images with a longer side in tiles of this side length.",
    ),
    click.option(
        "--overlap",
        "tile_overlap",
        type=_parse_overlap,
        metavar="NUMBER",
        show_default="0.2",
        help="Overlap of neighboring tiles, as a fraction of their side length.",
    ),
)
"""Add the options of tiles; the command gets those given as the dict ``tile``."""
