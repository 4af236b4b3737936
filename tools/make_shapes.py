"""Generate the data set of shapes."""

import time
from pathlib import Path

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import integer_option


@click.command(
    "make-shapes",
    context_settings=CONTEXT,
    short_help="Generate the data set of shapes.",
    epilog="Example: vertebra make-shapes shapes --train 400 --val 100 --seed 0",
)
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@integer_option("--train", 400, "Number of training images.", most=999_999)
@integer_option("--val", 100, "Number of validation images.", most=999_999)
@integer_option("--seed", 0, "Seed of the random generator.", least=0, most=2**32 - 1)
@integer_option("--size", 160, "Image size in pixels; each side varies from 4/5 to 6/5 of it.", least=64, most=2048)
@click.option("--stuff", is_flag=True, help="Draw backgrounds of stuff classes, and add COCO's panoptic files.")
def command(out: Path, train: int, val: int, seed: int, size: int, stuff: bool) -> None:
    """Draw images of eight kinds of shapes, and write them in COCO format and in PASCAL VOC format.

    OUT is the folder to write: new, empty, or written by an earlier call of this command.
    """
    from vertebra.data.shapes import SceneConfig, write_shapes

    start = time.perf_counter()
    is_new = write_shapes(out, train, val, seed, SceneConfig(size=size, stuff=stuff))
    result = f"drawn in {time.perf_counter() - start:.1f} s" if is_new else "exist already, left unchanged"
    click.echo(f"{train} + {val} images, {result}")
    click.echo(f"COCO: {out / 'coco'} (train, val, annotations/instances_train.json, instances_val.json)")
    if stuff:
        click.echo(f"COCO panoptic: {out / 'coco' / 'annotations'} (panoptic_train.json, panoptic_train, ...)")
    click.echo(f"VOC:  {out / 'voc'} (JPEGImages, Annotations, ImageSets, SegmentationClass, SegmentationObject)")


if __name__ == "__main__":
    raise SystemExit(run_command(command))
