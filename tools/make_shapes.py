"""Write the generated data set of shapes."""

import time
from pathlib import Path

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import integer_option


@click.command(
    "make-shapes",
    context_settings=CONTEXT,
    short_help="Write the generated data set.",
    epilog="Example: vertebra make-shapes shapes --train 400 --val 100 --seed 0",
)
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@integer_option("--train", 400, "Pictures to train on.", most=999_999)
@integer_option("--val", 100, "Pictures to evaluate on.", most=999_999)
@integer_option("--seed", 0, "Seed of the drawing: another one gives other pictures.", least=0, most=2**32 - 1)
@integer_option("--size", 160, "Length of a side in pixels; sides vary from 4/5 to 6/5 of it.", least=64, most=2048)
def command(out: Path, train: int, val: int, seed: int, size: int) -> None:
    """Draw pictures of eight shapes, and write them as a COCO folder and as a PASCAL VOC folder.

    OUT is the folder to write: new, empty, or written by this command.
    """
    from vertebra.data.shapes import SceneConfig, write_shapes

    start = time.perf_counter()
    is_new = write_shapes(out, train, val, seed, SceneConfig(size=size))
    how = f"drawn in {time.perf_counter() - start:.1f} s" if is_new else "already there, left as they are"
    click.echo(f"{train} + {val} pictures, {how}")
    click.echo(f"COCO: {out / 'coco'} (train, val, annotations/instances_train.json, instances_val.json)")
    click.echo(f"VOC:  {out / 'voc'} (JPEGImages, Annotations, ImageSets, SegmentationClass, SegmentationObject)")


if __name__ == "__main__":
    raise SystemExit(run_command(command))
