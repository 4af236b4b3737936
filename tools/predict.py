"""Predict image files with a trained model, and draw the predictions."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import (
    device_option,
    drawing_options,
    import_option,
    like_option,
    model_argument,
    offline_option,
    optimize_option,
    parse_fraction,
    tile_options,
)

if TYPE_CHECKING:
    from vertebra.inference import OptimizedPrecision


@click.command(
    "predict",
    context_settings=CONTEXT,
    short_help="Predict images with a trained model.",
    epilog="""\b
    Examples:
      vertebra predict runs/quickstart photos --output predictions
      vertebra predict torchvision/fasterrcnn_resnet50_fpn photo.jpg --output predictions
      vertebra predict runs/mine aerial.tif --output predictions --tile 1024 --color-by object
      vertebra predict mine.pth --like torchvision/fasterrcnn_resnet50_fpn photos --output predictions""",
)
@model_argument
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder for pictures and results.",
)
@click.option(
    "--score",
    type=parse_fraction,
    default="0.5",
    metavar="NUMBER",
    help="Draw predictions with at least this score.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Use the image and category ids of this COCO file, matched by name, so that results can be scored against it.",
)
@click.option("--save-crops", is_flag=True, help="Also write the part of the image inside the box of each object.")
@drawing_options
@tile_options
@like_option
@offline_option
@device_option
@optimize_option
@import_option
def command(
    model: str,
    images: tuple[Path, ...],
    output: Path,
    score: float,
    annotations: Path | None,
    save_crops: bool,
    drawing: dict[str, Any],
    tile: dict[str, Any],
    like: str | None,
    device: str,
    optimize: "OptimizedPrecision | None",
    imports: tuple[str, ...],
) -> None:
    """Predict images with a trained model; write a picture of each, and a results file.

    MODEL is a run folder, a checkpoint, a published model (see vertebra list models) or a file of weights; IMAGE is an
    image file or a folder of image files.
    """
    from vertebra.engine import predict_files
    from vertebra.inference import DrawingConfig, Predictor, TileConfig
    from vertebra.structures import UsageError

    if "overlap" in tile and "size" not in tile:
        raise UsageError("--overlap is the overlap of tiles, but there are none", "add --tile, such as --tile 1024")
    output.mkdir(parents=True, exist_ok=True)
    files = list(_find_images(images))
    predictor = Predictor(model, device, like=like, imports=imports)
    if tile:
        predictor.use_tiles(TileConfig(**tile))
    if optimize is not None:
        predictor.optimize(optimize, [path for path, _ in files[:3]], say=click.echo)
    results = predict_files(
        predictor,
        files,
        output,
        score=score,
        annotations=annotations,
        drawing=DrawingConfig(**drawing),
        save_crops=save_crops,
        say=click.echo,
    )
    click.echo(f"{len(files)} pictures and {', '.join(results)} are in {output}")


def _find_images(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield (image file, name in the output) for every file in ``paths``, and for the images below folders, sorted."""
    from vertebra.formats import IMAGE_SUFFIXES
    from vertebra.structures import UsageError

    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            if not files:
                raise UsageError("there are no images in this folder", file=path)
            yield from ((file, file.relative_to(path).as_posix()) for file in files)
        elif path.exists():
            yield path, path.name
        else:
            raise UsageError("there is no such image or folder", file=path)


if __name__ == "__main__":
    raise SystemExit(run_command(command))
