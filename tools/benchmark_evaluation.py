"""Benchmark of evaluations: COCO results against pycocotools, class maps against torchvision's reference script."""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import integer_option

if TYPE_CHECKING:
    import numpy as np

CLASSES = 80
OBJECTS_PER_IMAGE = 7.3
"""Mean number of objects in an image, as in COCO's val2017."""
FOUND = 3
"""Number of detections near an object; all others are at random positions."""
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427))
"""(height, width) of the images."""
POINTS = 16
"""Number of points of the outline of an object or a detection."""

PYCOCOTOOLS = """
import sys
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
truth = COCO(sys.argv[1])
evaluation = COCOeval(truth, truth.loadRes(sys.argv[2]), sys.argv[3])
evaluation.evaluate()
evaluation.accumulate()
evaluation.summarize()
print("stats", *map(float, evaluation.stats))
"""
VERTEBRA = """
import sys
from vertebra.tools.cli import main
main(["eval", "--annotations", sys.argv[1], "--results", sys.argv[2], "--task", sys.argv[3], "--json", sys.argv[4]])
"""
USAGE = """
import resource
usage = resource.getrusage(resource.RUSAGE_SELF)
print("usage", usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


@click.command(
    "benchmark-evaluation",
    context_settings=CONTEXT,
    short_help="Time the scoring of a results file.",
    epilog="Example: vertebra benchmark-evaluation --task segm --rounds 3",
)
@click.option("--task", type=click.Choice(("bbox", "segm", "semantic")), default="bbox", help="What is scored.")
@integer_option("--images", 5000, "Images of the generated data set; for semantic, 20 at most.")
@integer_option("--detections", 100, "Detections in an image.")
@integer_option("--classes", 21, "Classes of a semantic map.", most=255)
@integer_option("--rounds", 3, "Timed rounds per library.")
def command(task: str, images: int, detections: int, classes: int, rounds: int) -> None:
    """Time the scoring of a results file by vertebra eval and by pycocotools, alternately (A B A B).

    Each measurement is a new process that reads both files, scores and prints. Shows the median seconds and the peak
    memory of each, the median speed-up, and the largest difference between the twelve metrics. The data set is
    generated: 80 classes, objects as polygons, crowds as RLE, and detections with boxes or RLE masks.

    The task semantic times, in one thread, the computation of the metrics from logits at an eighth of the image's size:
    ours, which includes encoding and decoding the results rows, and that of torchvision's reference script.
    """
    if task == "semantic":
        from vertebra.tools.benchmark_semantic import compare_semantic

        click.echo(compare_semantic(min(images, 20), classes, rounds))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "truth.json", Path(folder) / "results.json"
        write_data_set(*files, task, images, detections)
        sizes = " and ".join(f"{file.stat().st_size / 2**20:.0f} MB" for file in files)
        click.echo(f"{task}, {images} images, {images * detections} detections, files of {sizes}")
        runs: tuple[list[Measurement], list[Measurement]] = ([], [])
        for _ in range(rounds):
            for program, record in zip((VERTEBRA, PYCOCOTOOLS), runs, strict=True):
                record.append(_measure(program, files, task))
    for name, record in zip(("vertebra eval", "pycocotools"), runs, strict=True):
        seconds, cpu = (
            statistics.median(getattr(run, field) for run in record) for field in ("seconds", "cpu_seconds")
        )
        memory = max(run.kilobytes for run in record) / 2**20
        click.echo(f"{name:13} {seconds:.1f} s, {cpu:.1f} s of CPU time, {memory:.2f} GiB")
    pairs = list(zip(*runs, strict=True))
    ratio = statistics.median(theirs.seconds / ours.seconds for ours, theirs in pairs)
    cpu = statistics.median(theirs.cpu_seconds / ours.cpu_seconds for ours, theirs in pairs)
    difference = max(abs(a - b) for a, b in zip(runs[0][0].metrics, runs[1][0].metrics, strict=True))
    click.echo(f"ratio {ratio:.1f}, of CPU time {cpu:.1f}; largest difference of a metric {difference:.1e}")


@dataclass(frozen=True, slots=True)
class Measurement:
    """The time and peak memory of one scoring, and the twelve metrics."""

    seconds: float
    cpu_seconds: float
    kilobytes: int
    metrics: list[float]


def _measure(program: str, files: tuple[Path, Path], task: str) -> Measurement:
    """Run a program in a new process."""
    scores = files[0].with_name("scores.json")
    arguments = [*map(str, files), task, str(scores)]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program + USAGE, *arguments], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode or "error" in done.stderr:
        raise click.ClickException(done.stderr.strip().rpartition("\n")[2])
    usage, stats = (re.search(rf"^{name} (.*)$", done.stdout, re.MULTILINE) for name in ("usage", "stats"))
    assert usage is not None, "the program prints its usage"
    cpu_seconds, kilobytes = usage[1].split()
    if stats is not None:
        metrics = [float(value) for value in stats[1].split()]
    else:
        summary = json.loads(scores.read_text())[task]
        metrics = [-1.0 if value is None else value for value in summary.values()]
    return Measurement(seconds, float(cpu_seconds), int(kilobytes), metrics)


def write_data_set(truth: Path, results: Path, task: str, images: int, detections: int) -> None:
    """Write a COCO annotation file, and a results file of boxes or masks with ``detections`` rows for each image."""
    import numpy as np

    from vertebra.formats import write_json

    rng = np.random.default_rng(0)
    entries: list[dict[str, Any]] = []
    with results.open("w") as file:
        for image_id in range(1, images + 1):
            size = SIZES[image_id % len(SIZES)]
            objects = _objects(rng, image_id, size)
            found = _detections(rng, objects, image_id, size, task, detections)
            file.write("".join(("," if image_id > 1 else "[", ",\n".join(map(json.dumps, found)), "\n")))
            entries += [{"id": len(entries) + index, **entry} for index, entry in enumerate(objects, start=1)]
        file.write("]")
    content = {
        "images": [
            {"id": number, "file_name": f"{number:012}.jpg", "height": height, "width": width}
            for number in range(1, images + 1)
            for height, width in [SIZES[number % len(SIZES)]]
        ],
        "annotations": entries,
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)],
    }
    write_json(truth, content)


def _objects(rng: "np.random.Generator", image_id: int, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the objects of an image: polygons, and one crowd as RLE in every fifth image."""
    count = rng.poisson(OBJECTS_PER_IMAGE)
    outlines, boxes = _shapes(rng, _random_boxes(rng, count, size), size)
    objects = [
        {
            "image_id": image_id, "category_id": label, "bbox": box, "area": box[2] * box[3] * 0.7, "iscrowd": 0,
            "segmentation": [outline],
        }
        for label, box, outline in zip(_random_classes(rng, count).tolist(), boxes, outlines, strict=True)
    ]  # fmt: skip
    if count and image_id % 5 == 0:
        objects[0] |= {"iscrowd": 1, "segmentation": _run_lengths(outlines[:1], size, compressed=False)[0]}
    return objects


def _detections(
    rng: "np.random.Generator",
    objects: list[dict[str, Any]],
    image_id: int,
    size: tuple[int, int],
    task: str,
    count: int,
) -> list[dict[str, Any]]:
    """Return the detections of an image, best first: some near each object, the others at random.

    They have either boxes or masks, since pycocotools would use the area of the box even if masks are scored.
    """
    import numpy as np

    near = np.repeat(np.array([entry["bbox"] for entry in objects]).reshape(-1, 4), FOUND, axis=0)[:count]
    near[:, :2] += near[:, 2:] * rng.normal(0, 0.07, (len(near), 2))
    near[:, 2:] *= np.exp(rng.normal(0, 0.1, (len(near), 2)))
    known = np.repeat(np.array([entry["category_id"] for entry in objects], int), FOUND)[: len(near)]
    labels = np.concatenate([known, _random_classes(rng, count - len(near))])
    outlines, boxes = _shapes(rng, np.concatenate([near, _random_boxes(rng, count - len(near), size)]), size)
    scores = rng.random(count, np.float32) ** 2 * np.where(np.arange(count) < len(near), np.float32(1), np.float32(0.4))
    name, shapes = ("bbox", boxes) if task == "bbox" else ("segmentation", _run_lengths(outlines, size))
    found = [
        {"image_id": image_id, "category_id": label, name: shape, "score": score}
        for label, shape, score in zip(labels.tolist(), shapes, scores.tolist(), strict=True)
    ]
    return sorted(found, key=lambda row: -row["score"])


def _random_classes(rng: "np.random.Generator", count: int) -> "np.ndarray":
    """Return random category ids; low ones are more frequent."""
    return (CLASSES * rng.random(count) ** 2).astype(int) + 1


def _random_boxes(rng: "np.random.Generator", count: int, size: tuple[int, int]) -> "np.ndarray":
    """Return random boxes (x, y, width, height) inside an image, with log-uniformly distributed sides."""
    import numpy as np

    extent = np.array(size[::-1])
    sides = np.exp(rng.uniform(np.log(8), np.log(0.9 * extent), (count, 2)))
    return np.concatenate([rng.random((count, 2)) * (extent - sides), sides], axis=1)


def _shapes(
    rng: "np.random.Generator", boxes: "np.ndarray", size: tuple[int, int]
) -> tuple[list[list[float]], list[list[float]]]:
    """Return a jagged outline in each box, clipped to the image and rounded to two decimals, and the outline's box."""
    import numpy as np

    angles = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    radii = rng.uniform(0.6, 1.0, (len(boxes), POINTS)) / 2
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = boxes[:, None, :2] + boxes[:, None, 2:] * (0.5 + radii[..., None] * directions)
    points = points.clip(0, size[::-1]).round(2)
    low, high = points.min(axis=1), points.max(axis=1)
    corners = np.concatenate([low, np.maximum(high - low, 1)], axis=1).astype(np.float32).tolist()
    return points.reshape(len(boxes), 2 * POINTS).tolist(), corners


def _run_lengths(outlines: list[list[float]], size: tuple[int, int], compressed: bool = True) -> list[dict[str, Any]]:
    """Return the mask of each outline as RLE; its counts are text if ``compressed``, otherwise a list."""
    import numpy as np

    from vertebra.formats import decode_mask, encode_segmentation

    masks = [encode_segmentation([outline], size) for outline in outlines]
    if compressed:
        return [{"size": list(size), "counts": mask["counts"].decode("ascii")} for mask in masks]
    pixels = [np.concatenate([[0], decode_mask(mask).ravel(order="F"), [2]]) for mask in masks]
    counts = [np.diff(np.flatnonzero(np.diff(values)), prepend=0).tolist() for values in pixels]
    return [{"size": list(size), "counts": runs} for runs in counts]


if __name__ == "__main__":
    raise SystemExit(run_command(command))
