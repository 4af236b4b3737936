"""Draw what a trained model finds in images."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from vertebra.structures import UsageError
from vertebra.tools.cli import run_tool, share


def main(arguments: Sequence[str] | None = None) -> int:
    """``tools/predict.py RUN_OR_CHECKPOINT IMAGE_OR_FOLDER... --output DIR``."""
    parser = argparse.ArgumentParser(
        prog="predict",
        description="Draw what a trained model finds in images, and write it: boxes as COCO results, or classes.",
        epilog="example: python tools/predict.py runs/quickstart photos/ --output found --score 0.5",
    )
    parser.add_argument("run", help="a run folder or a checkpoint")
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the pictures go")
    parser.add_argument("--score", type=share, default=0.5, help="draw what is found from this score up (default 0.5)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)

    from vertebra.data import read_image
    from vertebra.engine import Predictor, pick_device, write_image
    from vertebra.evaluation import write_results

    options.output.mkdir(parents=True, exist_ok=True)
    found = list(_find_images(options.images))
    targets = _choose_targets(found, options.output)
    predictor = Predictor(options.run, pick_device(options.device))
    task = predictor.task
    results, images = [], []
    for image_id, ((path, name), target) in enumerate(zip(found, targets, strict=True), start=1):
        image = read_image(path)
        prediction = predictor(image)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, task.draw(image, prediction, options.score))
        images.append({"id": image_id, "file_name": name, "height": image.shape[0], "width": image.shape[1]})
        results += task.rows(prediction, image_id)
        print(f"{name}: {task.describe(prediction, options.score)}")
    files = task.files(results)
    for name, rows in files.items():
        write_results(options.output / name, rows)
    (options.output / "images.json").write_text(json.dumps(images, indent=1) + "\n")
    print(f"{len(images)} pictures and {', '.join(files)} are in {options.output}")
    return 0


def _find_images(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Every image file with the name it gets in the output, folder by folder in order."""
    from vertebra.data import IMAGE_SUFFIXES

    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise UsageError("there are no images in this folder", file=path)
            yield from ((file, str(file.relative_to(path))) for file in found)
        elif path.exists():
            yield path, path.name
        else:
            raise UsageError("there is no such image or folder", file=path)


def _choose_targets(found: Sequence[tuple[Path, str]], output: Path) -> list[Path]:
    """Where each picture goes: to a file of its own that is none of the images."""
    inputs = {path.resolve() for path, _ in found}
    targets: list[Path] = []
    for _, name in found:
        target = output / Path(name).with_suffix(".png")
        if target.resolve() in inputs:
            raise UsageError("the picture would overwrite this image", "choose another --output", file=target)
        targets.append(target)
    for target, count in Counter(targets).items():
        if count > 1:
            raise UsageError("two images would give this picture", "draw them into different folders", file=target)
    return targets


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
