"""Convert data sets between the formats of annotations."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import BAD_DATA, BAD_DATA_HELP, data_format_option

if TYPE_CHECKING:
    from vertebra.data import Policy
    from vertebra.data.conversion import Target


@click.command(
    "convert-data",
    context_settings=CONTEXT,
    short_help="Convert data sets to COCO, VOC or YOLO.",
    epilog="""\b
    Examples:
      vertebra convert-data mine/data.yaml mine_coco --to coco
      vertebra convert-data mine/labelme mine_yolo --to yolo --link""",
)
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", "target", required=True, type=click.Choice(["coco", "voc", "yolo"]), help="The format to write.")
@click.option("--images", type=click.Path(path_type=Path), metavar="DIR", help="The folder of the images of SRC.")
@data_format_option
@click.option("--link", is_flag=True, help="Link the images instead of copying them, on the same disk.")
@click.option(
    "--bad-data",
    type=click.Choice(BAD_DATA),
    default="error",
    help=BAD_DATA_HELP,
)
def command(
    source: Path,
    out: Path,
    target: "Target",
    images: Path | None,
    data_format: str | None,
    link: bool,
    bad_data: "Policy",
) -> None:
    """Convert the boxes, masks and keypoints of a data set, and say what the other format cannot hold.

    SRC is a path that vertebra train --data takes. OUT is a new or empty folder.
    """
    from vertebra.data import DataPath, convert_data

    data = DataPath(source, "detection", images, data_format)
    for line in convert_data(data, out, target, link=link, bad_data=bad_data):
        click.echo(line)


if __name__ == "__main__":
    raise SystemExit(run_command(command))
