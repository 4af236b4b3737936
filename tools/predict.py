"""Draw what a trained model predicts in images."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import device_option, parse_fraction, run_argument


@click.command(
    "predict",
    context_settings=CONTEXT,
    short_help="Draw what a trained model predicts in images.",
    epilog="Example: vertebra predict runs/quickstart photos --output found",
)
@run_argument
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The folder for the pictures."
)
@click.option(
    "--score",
    type=parse_fraction,
    default="0.5",
    metavar="NUMBER",
    help="Draw predictions with this score or a higher one.",
)
@device_option
def command(run: str, images: tuple[Path, ...], output: Path, score: float, device: str) -> None:
    """Draw what a trained model predicts in images, and write it: boxes as COCO results, or classes.

    RUN is a run folder or a checkpoint; IMAGE is an image file or a folder of them.
    """
    from vertebra.engine import Predictor, write_image
    from vertebra.formats import read_image, write_results

    output.mkdir(parents=True, exist_ok=True)
    named_files = list(_find_images(images))
    pictures = _choose_pictures(named_files, output)
    predictor = Predictor(run, device)
    task = predictor.task
    rows, entries = [], []
    for image_id, ((path, name), picture) in enumerate(zip(named_files, pictures, strict=True), start=1):
        image = read_image(path)
        prediction = predictor(image)
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_image(picture, task.draw(image, prediction, score))
        entries.append({"id": image_id, "file_name": name, "height": image.shape[0], "width": image.shape[1]})
        rows += task.rows(prediction, image_id)
        click.echo(f"{name}: {task.describe(prediction, score)}")
    files = task.files(rows)
    for name, own_rows in files.items():
        write_results(output / name, own_rows)
    (output / "images.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    click.echo(f"{len(entries)} pictures and {', '.join(files)} are in {output}")


def _find_images(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield every image file with its name in the output, folder by folder in order."""
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


def _choose_pictures(named_files: Sequence[tuple[Path, str]], output: Path) -> list[Path]:
    """Return the file that each picture is drawn into; raise UsageError if one is an input or another's."""
    from vertebra.structures import UsageError

    inputs = {path.resolve() for path, _ in named_files}
    pictures = [output / Path(name).with_suffix(".png") for _, name in named_files]
    for picture, count in Counter(pictures).items():
        if picture.resolve() in inputs:
            raise UsageError("the picture would overwrite this image", "choose another --output", file=picture)
        if count > 1:
            raise UsageError("two images would give this picture", "draw them into different folders", file=picture)
    return pictures


if __name__ == "__main__":
    raise SystemExit(run_command(command))
