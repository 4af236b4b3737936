"""Export a trained model to a file that other programs run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.benchmark import parse_size
from vertebra.tools.cli import CONTEXT, check_output_file, run_command
from vertebra.tools.options import import_option, like_option, model_argument, offline_option

if TYPE_CHECKING:
    from vertebra.inference import ExportConfig


def parse_batch(text: str) -> int | None:
    """Parse a number of images, or ``dynamic`` as None; raise BadParameter for anything else."""
    if text == "dynamic":
        return None
    if not (text.isdecimal() and int(text)):
        raise click.BadParameter(f"{text!r} is not a number of images or 'dynamic'")
    return int(text)


def find_images(path: Path) -> list[Path]:
    """Return the image files in a folder and below, sorted, or the file itself; raise UsageError if there are none."""
    from vertebra.formats import IMAGE_SUFFIXES
    from vertebra.structures import UsageError

    files = [path] if path.is_file() else sorted(path.rglob("*"))
    files = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise UsageError("there are no images here", "give an image or a folder of images", file=path)
    return files


def read_config(values: Mapping[str, Any]) -> "ExportConfig":
    """Return the config of an export from the values of the command line; raise UsageError if it is invalid."""
    from pydantic import ValidationError

    from vertebra.inference import ExportConfig
    from vertebra.structures import usage_error_from_validation

    try:
        return ExportConfig.model_validate({name: values[name] for name in ExportConfig.model_fields})
    except ValidationError as error:
        raise usage_error_from_validation("export", error) from None


@click.command(
    "export",
    context_settings=CONTEXT,
    short_help="Export a trained model to ONNX or torch.",
    epilog="""\b
    Examples:
      vertebra export runs/quickstart quickstart.onnx --verify photos
      vertebra export runs/quickstart fixed.onnx --size 800x1344 --batch 1
      vertebra predict quickstart.onnx photos --output predictions""",
)
@model_argument
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--format",
    type=click.Choice(("onnx", "torch-export", "aoti", "torchscript")),
    default="onnx",
    help="The format: ONNX, a program of torch.export, compiled code of AOTInductor, or TorchScript.",
)
@click.option("--size", type=parse_size, metavar="HxW", show_default="any", help="Fix the size of the images.")
@click.option("--dynamic", is_flag=True, help="Take images of any size, which is the default.")
@click.option("--batch", type=parse_batch, default="dynamic", metavar="N", help="Number of images, or dynamic.")
@click.option(
    "--resize/--no-resize",
    default=None,
    show_default="--resize without --size",
    help="Take photos and resize them in the graph, or take images that are resized already, with their sizes.",
)
@click.option("--half", is_flag=True, help="Store the weights in float16.")
@click.option(
    "--verify",
    type=click.Path(path_type=Path),
    metavar="IMAGES",
    show_default="generated images",
    help="Compare the predictions of the file and of the model on this image, or on the images in this folder.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also show the AP of both on the images of --verify, with the objects of this COCO file.",
)
@click.option("--no-check", is_flag=True, help="Keep a file whose predictions differ too much.")
@like_option
@offline_option
@import_option
def command(model: str, out: Path, **values: Any) -> None:
    """Export a trained model with everything around it: uint8 images in, predictions in pixels of the images out.

    MODEL is a run folder, a checkpoint, a published model (see vertebra list models) or a file of weights; OUT ends in
    .onnx, .pt2 or .ts. The file gets its name only after its predictions were compared with the model's.
    """
    if values["dynamic"] and values["size"] is not None:
        raise click.UsageError("--size and --dynamic contradict each other: leave one out")
    if values["annotations"] is not None and values["verify"] is None:
        raise click.UsageError("--annotations needs --verify, which names the images")

    from vertebra.engine import compare_scores
    from vertebra.inference import export_model, import_user_code

    check_output_file(out)
    for name in values["imports"]:
        import_user_code(name)
    files = [] if values["verify"] is None else find_images(values["verify"])
    config = read_config({**values, "check": not values["no_check"]})
    export_model(model, out, config, like=values["like"], photos=files, say=click.echo)
    if values["annotations"] is not None:
        click.echo(compare_scores(model, out, files, values["annotations"], like=values["like"]))
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    raise SystemExit(run_command(command))
