"""Benchmark of the prediction of files against a plain loop over the images, run alternately."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vertebra.tools.cli import CONTEXT, run_command
from vertebra.tools.options import device_option, integer_option, model_argument

if TYPE_CHECKING:
    from vertebra.inference import Predictor, Sources


@click.command(
    "benchmark-prediction",
    context_settings=CONTEXT,
    short_help="Time the prediction of image files.",
    epilog="Example: vertebra benchmark-prediction runs/quickstart photos --batch-size 8",
)
@model_argument
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@integer_option("--count", 50, "Images per round.")
@integer_option("--rounds", 5, "Timed rounds of each.")
@integer_option("--batch-size", None, "The number of images that are predicted together; by default the model's.")
@device_option
def command(model: str, photos: Path, count: int, rounds: int, batch_size: int | None, device: str) -> None:
    """Time vertebra predict and a plain loop on the images of a folder, alternately (A B A B).

    The loop reads, predicts and draws one image after another, writes PNG files, and the results at the end. Shows
    images per second of wall time in the fastest round, and the CPU time per image of the whole process and of the
    main thread alone, which limits the speed if there are enough cores.
    """
    from vertebra.engine import PredictionOptions, predict_files
    from vertebra.inference import Predictor, Sources, find_sources

    predictor = Predictor(model, device)
    sources = Sources(images=find_sources([photos]).images[:count])
    options = PredictionOptions(batch_size=batch_size)
    sides: dict[str, Callable[[Path], object]] = {
        "plain loop": lambda output: _predict_plainly(predictor, sources, output),
        "predict": lambda output: predict_files(predictor, sources, output, options),
    }
    times: dict[str, tuple[float, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, run in sides.items():
                measured = _time(run, Path(folder) / "found")
                times[name] = tuple(map(min, times.get(name, measured), measured))
    images = len(sources.images)
    for name, (wall, cpu, main) in times.items():
        click.echo(
            f"{name}: {images / wall:.1f} images/s, CPU {1000 * cpu / images:.1f} ms per image, "
            f"main thread {1000 * main / images:.1f} ms"
        )
    click.echo(f"ratio {times['plain loop'][0] / times['predict'][0]:.2f}")


def _time(run: Callable[[Path], object], output: Path) -> tuple[float, float, float]:
    """Return the seconds of wall time, of CPU time and of CPU time of this thread that a run takes."""
    shutil.rmtree(output, ignore_errors=True)
    before = time.perf_counter(), time.process_time(), time.thread_time()
    run(output)
    after = time.perf_counter(), time.process_time(), time.thread_time()
    wall, cpu, main = (end - start for start, end in zip(before, after, strict=True))
    return wall, cpu, main


def _predict_plainly(predictor: "Predictor", sources: "Sources", output: Path) -> None:
    """Predict and draw one image after another."""
    from vertebra.engine import pick_task, write_results_files
    from vertebra.inference import load_photo, write_image

    task, rows = pick_task(predictor.model.head, predictor.trained.classes), []
    for number, file in enumerate(sources.images, start=1):
        photo = load_photo(file.path)
        prediction = predictor(photo)
        picture = output / Path(file.name).with_suffix(".png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_image(picture, task.draw(photo, prediction, 0.5))
        rows += task.rows(prediction, number)
    write_results_files(task, rows, output)


if __name__ == "__main__":
    raise SystemExit(run_command(command))
