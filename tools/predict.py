"""Predict images and videos with a trained model, and draw the predictions."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import (
    device_option,
    drawing_options,
    import_option,
    integer_option,
    like_option,
    model_argument,
    offline_option,
    optimize_option,
    parse_fraction,
    tile_options,
)

if TYPE_CHECKING:
    from vertebra.engine import PredictionOptions, PredictionSummary
    from vertebra.inference import OptimizedPrecision, Photo, Sources

SHOWN_FAILURES = 10
"""The largest number of files that could not be predicted that are printed at the end."""


@click.command(
    "predict",
    context_settings=CONTEXT,
    short_help="Predict images with a trained model.",
    epilog="""\b
    Examples:
      vertebra predict runs/quickstart photos --output predictions
      vertebra predict torchvision/fasterrcnn_resnet50_fpn photo.jpg --output predictions
      vertebra predict runs/quickstart 'photos/**/*.jpg' --output predictions --resume
      find photos -name '*.png' | vertebra predict runs/quickstart - --output predictions
      vertebra predict runs/mine aerial.tif --output predictions --tile 1024 --color-by object
      vertebra predict mine.pth --like torchvision/fasterrcnn_resnet50_fpn photos --output predictions""",
)
@model_argument
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder for pictures and results.",
)
@click.option("--resume", is_flag=True, help="Continue the prediction in the output folder; skip what is done.")
@click.option(
    "--score",
    type=parse_fraction,
    default="0.5",
    metavar="NUMBER",
    help="Draw predictions with at least this score; the results have all.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Use the image and category ids of this COCO file, matched by name, so that results can be scored against it.",
)
@click.option("--no-pictures", is_flag=True, help="Write results only, which is faster.")
@click.option("--no-recursive", is_flag=True, help="Leave out the subfolders of folders.")
@integer_option("--batch-size", None, "The number of images that are predicted together; by default the model's.")
@integer_option("--workers", None, "The number of threads that decode, and that draw; by default the cores minus one.")
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
    sources: tuple[str, ...],
    output: Path,
    no_pictures: bool,
    no_recursive: bool,
    save_crops: bool,
    drawing: dict[str, Any],
    tile: dict[str, Any],
    like: str | None,
    device: str,
    optimize: "OptimizedPrecision | None",
    imports: tuple[str, ...],
    **options: Any,
) -> None:
    """Predict images and videos with a trained model; write a picture of each, and results files.

    MODEL is a run folder, a checkpoint, a published model (see vertebra list models) or a file of weights. A SOURCE is
    an image, a folder of images, a pattern such as 'photos/**/*.jpg', a text file with a path per line, a video, the
    number of a camera, or - for paths on standard input.

    Results are in results.jsonl as soon as an image is predicted, and at the end, also after Ctrl-C, in COCO's format.
    If files cannot be predicted, the others are; failed.jsonl lists them, and the exit code is 3.
    """
    from vertebra.engine import PredictionOptions, predict_files, require_unused_output
    from vertebra.engine.logging.progress import OptionalConsole, ProgressDisplay
    from vertebra.inference import DrawingConfig, Predictor, TileConfig, find_sources
    from vertebra.structures import UsageError

    if "overlap" in tile and "size" not in tile:
        raise UsageError("--overlap is the overlap of tiles, but there are none", "add --tile, such as --tile 1024")
    require_unused_output(output, options["resume"])
    found = find_sources(sources, recursive=not no_recursive, outside=output)
    predictor = Predictor(model, device, like=like, imports=imports)
    if tile:
        predictor.use_tiles(TileConfig(**tile))
    if optimize is not None:
        predictor.optimize(optimize, _first_photos(found), say=click.echo)
    prediction = PredictionOptions(
        pictures=not no_pictures, crops=save_crops, drawing=DrawingConfig(**drawing), **options
    )
    with ProgressDisplay(OptionalConsole()).shown() as display:
        summary = predict_files(predictor, found, output, prediction, display)
        _report(summary, output, prediction, display.say)


def _first_photos(sources: "Sources", count: int = 3) -> "list[Photo]":
    """Return the first images that can be decoded, of the first ten."""
    from vertebra.inference import load_photo
    from vertebra.structures import DataError

    photos: list[Photo] = []
    for file in sources.images[:10]:
        if len(photos) < count:
            with contextlib.suppress(DataError):
                photos.append(load_photo(file.path))
    return photos


def _report(
    summary: "PredictionSummary", output: Path, options: "PredictionOptions", say: Callable[[str], None]
) -> None:
    """Print what was predicted; raise DataError if files could not be predicted."""
    from vertebra.structures import DataError

    origin = (
        f"are those of {options.annotations}" if options.annotations else "count from 1 and match no annotation file"
    )
    say(f"image ids {origin}; images.json lists them with their file names")
    skipped = f" ({summary.skipped} were done before)" if summary.skipped else ""
    what = "pictures" if options.pictures else "images"
    say(f"{summary.predicted} {what}{skipped} and {', '.join(summary.results)} are in {output}")
    for path, reason in list(summary.failures.items())[:SHOWN_FAILURES]:
        say(f"not predicted: {path}: {reason}")
    if summary.failures:
        raise DataError(
            f"{len(summary.failures)} of {summary.predicted + len(summary.failures)} files could not be predicted",
            "the file lists them with the reasons; continue with --resume once they are corrected",
            case="failed-images",
            file=output / "failed.jsonl",
        )


if __name__ == "__main__":
    raise SystemExit(run_command(command))
