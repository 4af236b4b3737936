"""Examine the images and annotations of a data set, and say what is wrong and how to fix it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.cli import CONTEXT, check_output_file, run_command
from vertebra.tools.options import complete_config, data_format_option, import_option, set_option

if TYPE_CHECKING:
    from vertebra.engine.doctor import DataSource

PATH: Any = click.Path(path_type=Path)


@click.command(
    "doctor",
    context_settings=CONTEXT,
    short_help="Find faults in a data set, and correct a copy of it.",
    epilog="""\b
    Examples:
      vertebra doctor mine/train.json
      vertebra doctor mine/voc --html report.html
      vertebra doctor faster_rcnn_r50_fpn_bccd --quick
    The exit code is 0 without errors and warnings, 1 with some, and 3 if data cannot be used.""",
)
@click.argument("source", metavar="CONFIG|PATH", shell_complete=complete_config)
@click.option("--val", type=PATH, metavar="PATH", show_default="as PATH lists", help="The validation data.")
@click.option("--images", type=PATH, metavar="DIR", show_default="beside PATH", help="The folder of the images.")
@data_format_option
@click.option(
    "--task", type=click.Choice(("detection", "semantic")), show_default="found", help="The task of the data at PATH."
)
@set_option
@import_option
@click.option("--quick", is_flag=True, help="Do not decode the images.")
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Write the findings as JSON.")
@click.option("--html", "html_file", type=PATH, metavar="FILE", help="Write a page with pictures of the examples.")
@click.option("--fix", type=PATH, metavar="DIR", help="Write a corrected copy into this new folder.")
@click.option("--strict", is_flag=True, help="Let notes give exit code 1, too.")
def command(**values: Any) -> None:
    """Find the faults of the images and annotations of a data set, each with examples and what to do.

    The data are those of a config (a name or a file), or those at a path: a COCO file, a VOC folder or other data, see
    docs/data.md. The data are never changed: --fix writes a corrected copy in COCO's format, with a log of changes.
    """
    json_file, html_file = values["json_file"], values["html_file"]
    for file in (json_file, html_file):
        if file is not None:
            check_output_file(file)
    from rich.console import Console

    from vertebra.engine.doctor import examine
    from vertebra.engine.doctor.fix import write_corrected_copy
    from vertebra.engine.doctor.page import render_page
    from vertebra.engine.logging.progress import ProgressDisplay
    from vertebra.formats import write_json, write_text
    from vertebra.inference import import_user_code

    for name in values["imports"]:
        import_user_code(name)
    source = find_source(values)
    with ProgressDisplay(Console(stderr=True)).shown() as display:
        diagnosis = examine(source, not values["quick"], display)
    click.echo(diagnosis.describe())
    if json_file is not None:
        write_json(json_file, diagnosis.as_json())
    if html_file is not None:
        write_text(html_file, render_page(diagnosis))
    if values["fix"] is not None:
        click.echo(write_corrected_copy(source, values["fix"]).describe())
    if code := diagnosis.exit_code(values["strict"]):
        raise click.exceptions.Exit(code)


def find_source(values: dict[str, Any]) -> "DataSource":
    """Return the data of the config or at the path on the command line.

    Raises click's UsageError for options that do not belong to what was given.
    """
    from vertebra.configs import load_config
    from vertebra.data import DataPath
    from vertebra.engine import override
    from vertebra.engine.doctor import DataSource

    source, path = values["source"], Path(values["source"])
    given = [name for name in ("val", "images", "data_format", "task") if values.get(name) is not None]
    if not is_data(path):
        if given:
            raise click.UsageError(f"--{given[0].replace('_', '-')} belongs to a path, but {source} is a config")
        return DataSource.of_experiment(source, override(load_config(source), values["assignments"]))
    if values["assignments"]:
        raise click.UsageError(f"--set changes a config, but {source} is a path to data")
    task = values.get("task") or find_task(path)
    data = DataPath(path, task, values.get("images"), values.get("data_format"))
    return DataSource.of_path(data, values.get("val"))


def is_data(path: Path) -> bool:
    """Return whether a path leads to data, and not to a config."""
    if path.suffix == ".py" or not path.exists():
        return path.suffix != ".py" and len(path.parts) > 1
    if path.suffix != ".json":
        return True
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return True
    return not (isinstance(content, dict) and {"model", "recipe"} <= content.keys())


def find_task(path: Path) -> str:
    """Return ``semantic`` for a VOC folder that has class maps and no boxes, otherwise ``detection``."""
    has_maps = (path / "SegmentationClass").is_dir() and not (path / "Annotations").is_dir()
    return "semantic" if has_maps else "detection"


if __name__ == "__main__":
    raise SystemExit(run_command(command))
