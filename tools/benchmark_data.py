"""Time our way from files to tensors against torchvision's and albumentations', in turn, on the same photos."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vertebra.tools.benchmark import alternate
from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import integer_option

if TYPE_CHECKING:
    from vertebra.tools.benchmark_pipelines import Policy


@click.command(
    "benchmark-data",
    context_settings=CONTEXT,
    short_help="Time reading and transforming images.",
    epilog="Example: vertebra benchmark-data coco/val2017 coco/annotations/instances_val2017.json",
)
@click.argument("files", nargs=-1, metavar="[IMAGES ANNOTATIONS]", type=click.Path(path_type=Path))
@click.option("--policy", type=click.Choice(("resize", "jitter")), default="resize", help="The transform of an image.")
@integer_option(
    "--decode-short-side",
    None,
    "Decode JPEGs at a half, a quarter or an eighth that keeps this many pixels, and time ours without it too.",
)
@integer_option("--count", 50, "Images in a round.")
@integer_option("--rounds", 5, "Timed rounds of each pipeline.")
def command(files: tuple[Path, ...], policy: "Policy", decode_short_side: int | None, count: int, rounds: int) -> None:
    """Time reading and transforming images in one process with one thread, ours and other pipelines in turn (A B A B).

    Shows the median images a second: decoding, masks, resize to 800/1333 or large-scale jitter, flip, tensors; and how
    many times as fast ours is. IMAGES ANNOTATIONS are a COCO folder and a file with masks; without them, 50 pictures
    of about 640 pixels are generated.
    """
    if len(files) not in (0, 2):
        raise click.UsageError("two paths are needed, or none: the folder of the images and the annotation file")

    import cv2
    import torch

    from vertebra.data.shapes import SceneConfig, write_shapes
    from vertebra.tools.benchmark_pipelines import build_pipelines

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if not files:
            write_shapes(Path(folder) / "shapes", count, val=1, config=SceneConfig(size=640))
            coco = Path(folder) / "shapes" / "coco"
            files = (coco / "train", coco / "annotations" / "instances_train.json")
        images, annotations = files
        ours, others, found = build_pipelines(images, annotations, policy, decode_short_side)
        count = min(count, found)
        click.echo(f"{policy}, {count} images a round, one thread, torch {torch.__version__}")
        for name, theirs in others.items():
            seconds = alternate(_over_images(ours, count), _over_images(theirs, count), rounds, torch.device("cpu"))
            our_speed, their_speed = (count / statistics.median(series) for series in seconds)
            ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
            click.echo(f"ours {our_speed:.1f} images/s, {name} {their_speed:.1f}, ratio {ratio:.2f}")


def _over_images(pipeline: Callable[[int, int], object], count: int) -> Callable[[], None]:
    """Return a function that runs a pipeline over all images; every call of it has a round number of its own."""
    numbers = iter(range(1_000_000))

    def run_round() -> None:
        number = next(numbers)
        for index in range(count):
            pipeline(number, index)

    return run_round


if __name__ == "__main__":
    raise SystemExit(run_command(command))
