"""Time our way from files to tensors against torchvision's and albumentations', in turn, on the same photos."""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from vertebra.structures import UsageError
from vertebra.tools.benchmark import alternate
from vertebra.tools.cli import parse_integer, run_tool


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/benchmark_data.py [IMAGES ANNOTATIONS] [--policy resize] [--decode-short-side N]``."""
    options = _parse(arguments)

    import cv2
    import torch

    from vertebra.data.shapes import SceneConfig, write_shapes
    from vertebra.tools.benchmark_pipelines import build_pipelines

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if not options.files:
            write_shapes(Path(folder) / "shapes", options.count, val=1, config=SceneConfig(size=640))
            coco = Path(folder) / "shapes" / "coco"
            options.files = [coco / "train", coco / "annotations" / "instances_train.json"]
        images, annotations = options.files
        ours, others, found = build_pipelines(images, annotations, options.policy, options.decode_short_side)
        count = min(options.count, found)
        print(f"{options.policy}, {count} images a round, one thread, torch {torch.__version__}")
        for name, theirs in others.items():
            seconds = alternate(_rounds(ours, count), _rounds(theirs, count), options.rounds, torch.device("cpu"))
            mine, other = (count / statistics.median(series) for series in seconds)
            ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
            print(f"ours {mine:.1f} images/s, {name} {other:.1f}, ratio {ratio:.2f}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmark-data",
        description="Median images a second of one process with one thread: decoding, masks, resize to 800/1333 or "
        "large-scale jitter, flip, tensors. Ours and each other way in turn (A B A B), and how many times theirs ours "
        "is.",
        epilog="example: python tools/benchmark_data.py coco/val2017 coco/annotations/instances_val2017.json",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="IMAGES ANNOTATIONS", help="a COCO folder and file with "
                        "masks (default: 50 generated pictures of about 640 pixels)")  # fmt: skip
    parser.add_argument("--policy", choices=("resize", "jitter"), default="resize", help="which (default resize)")
    parser.add_argument("--decode-short-side", type=parse_integer(1), metavar="N", help="decode JPEGs at a half, a "
                        "quarter or an eighth that keeps so many pixels, and time ours without it too")  # fmt: skip
    parser.add_argument("--count", type=parse_integer(1), default=50, help="images a round (default 50)")
    parser.add_argument("--rounds", type=parse_integer(1), default=5, help="timed rounds of each (default 5)")
    options = parser.parse_args(arguments)
    if len(options.files) not in (0, 2):
        raise UsageError("two paths are needed, or none", "give the folder of the images and the annotation file")
    return options


def _rounds(pipeline: Callable[[int, int], object], count: int) -> Callable[[], None]:
    """A round over the images, each with a number of its own."""
    numbers = iter(range(1_000_000))

    def run() -> None:
        number = next(numbers)
        for index in range(count):
            pipeline(number, index)

    return run


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
