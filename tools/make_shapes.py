"""Write the generated data set."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from vertebra.tools.cli import parse_integer, run_tool


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/make_shapes.py OUT [--train N] [--val N] [--seed N] [--size N]``."""
    parser = argparse.ArgumentParser(
        prog="make-shapes",
        description="Draw pictures of eight shapes, and write them as a COCO folder and as a PASCAL VOC folder.",
        epilog="example: python tools/make_shapes.py shapes --train 400 --val 100 --seed 0",
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="the folder to write; new, empty, or written by this tool"
    )
    for name, default, least, most, what in (
        ("--train", 400, 1, 999_999, "pictures to train on"),
        ("--val", 100, 1, 999_999, "pictures to evaluate on"),
        ("--seed", 0, 0, 2**32 - 1, "another number gives other pictures"),
        ("--size", 160, 64, 2048, "pixels; sides vary from 4/5 to 6/5 of it"),
    ):
        what = f"{what} (default {default})"
        parser.add_argument(name, type=parse_integer(least, most), default=default, metavar="N", help=what)
    options = parser.parse_args(arguments)

    from vertebra.data.shapes import SceneConfig, write_shapes

    start = time.perf_counter()
    is_new = write_shapes(options.out, options.train, options.val, options.seed, SceneConfig(size=options.size))
    how = f"drawn in {time.perf_counter() - start:.1f} s" if is_new else "already there, left as they are"
    print(f"{options.train} + {options.val} pictures, {how}")
    print(f"COCO: {options.out / 'coco'} (train, val, annotations/instances_train.json, instances_val.json)")
    print(f"VOC:  {options.out / 'voc'} (JPEGImages, Annotations, ImageSets, SegmentationClass, SegmentationObject)")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
