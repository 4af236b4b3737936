"""A tiny data set of boxes and polygons, as plain values, to be written in the layout of any labeling tool."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vertebra.data import AnnotatedImagesConfig, CocoDataset, build_dataset

HEIGHT, WIDTH = 48, 80
NAMES = ("cat", "dog")


def write_images(folder: Path, *names: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """Write PNG or JPEG images of noise with these names."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def open_labels(path: Path, label_format: str, policy="error", **options: Any) -> CocoDataset:
    """Open a data set in the format of a labeling tool."""
    dataset = build_dataset(AnnotatedImagesConfig(path=path, format=label_format, **options), policy)
    assert isinstance(dataset, CocoDataset)
    return dataset


def objects_of(dataset: CocoDataset) -> dict[str, list[tuple[str, list[float]]]]:
    """Return the (class name, box as x1, y1, x2, y2) of the annotated objects of every image, by image id."""
    truth = dataset.ground_truth()
    names = {category["id"]: category["name"] for category in truth["categories"]}
    found: dict[str, list[tuple[str, list[float]]]] = {image["id"]: [] for image in truth["images"]}
    for entry in truth["annotations"]:
        x, y, width, height = entry["bbox"]
        box = [round(value, 6) for value in (x, y, x + width, y + height)]
        found[entry["image_id"]].append((names[entry["category_id"]], box))
    return found
