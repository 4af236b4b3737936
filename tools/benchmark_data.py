"""Benchmark of our data pipeline against torchvision's and albumentations', run alternately on the same images."""

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
@click.option(
    "--policy",
    type=click.Choice(("resize", "jitter")),
    default="resize",
    help="The transform: a resize to 800/1333, or large-scale jitter.",
)
@integer_option(
    "--decode-short-side",
    None,
    "Let our pipeline decode JPEGs at 1/2, 1/4 or 1/8 size if the short side keeps this many pixels; also time it "
    "without that.",
)
@integer_option("--count", 50, "Images per round.")
@integer_option("--rounds", 5, "Timed rounds per pipeline.")
def command(files: tuple[Path, ...], policy: "Policy", decode_short_side: int | None, count: int, rounds: int) -> None:
    """Time reading and transforming images with our pipeline and others, alternately (A B A B), in a single thread.

    Each pipeline decodes an image and its masks, applies the transform and a flip, and converts to tensors. Shows the
    median images per second and the speed-up, ours divided by theirs. IMAGES ANNOTATIONS are a folder of images and a
    COCO file with masks; without them, pictures of about 640 pixels are generated.
    """
    if len(files) not in (0, 2):
        raise click.UsageError("give both the folder of the images and the annotation file, or neither")

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
        ours, others, available = build_pipelines(images, annotations, policy, decode_short_side)
        count = min(count, available)
        click.echo(f"{policy}, {count} images per round, one thread, torch {torch.__version__}")
        for name, theirs in others.items():
            seconds = alternate([_over_images(ours, count), _over_images(theirs, count)], rounds, torch.device("cpu"))
            our_speed, their_speed = (count / statistics.median(series) for series in seconds)
            ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
            click.echo(f"ours {our_speed:.1f} images/s, {name} {their_speed:.1f}, ratio {ratio:.2f}")


def _over_images(pipeline: Callable[[int, int], object], count: int) -> Callable[[], None]:
    """Return a function that runs a pipeline over all images; each call uses the next epoch number."""
    epochs = iter(range(1_000_000))

    def run_round() -> None:
        epoch = next(epochs)
        for index in range(count):
            pipeline(epoch, index)

    return run_round


if __name__ == "__main__":
    raise SystemExit(run_command(command))
