"""A tiny valid COCO data set for tests to change: four images of 64 x 96, six objects of two classes with sparse
ids."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vertebra.data import CocoConfig, CocoDataset, DataReport

HEIGHT, WIDTH = 64, 96

CONTENT: dict[str, Any] = {
    "info": {},
    "categories": [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}],
    "images": [
        {"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH} for number in (11, 12, 13, 14)
    ],
    "annotations": [
        {"id": 1, "image_id": 11, "category_id": 7, "bbox": [10, 10, 20, 30], "area": 600, "iscrowd": 0},
        {"id": 2, "image_id": 11, "category_id": 90, "bbox": [40.5, 8.25, 30, 30], "area": 900, "iscrowd": 0},
        {"id": 3, "image_id": 12, "category_id": 90, "bbox": [0, 0, 96, 64], "area": 6144, "iscrowd": 0},
        {"id": 4, "image_id": 12, "category_id": 7, "bbox": [50, 20, 40, 40], "area": 1600, "iscrowd": 1},
        {"id": 5, "image_id": 14, "category_id": 7, "bbox": [5, 6, 7, 8], "area": 56, "iscrowd": 0},
        {"id": 6, "image_id": 14, "category_id": 7, "bbox": [30, 30, 10, 10], "area": 100, "iscrowd": 0},
    ],
}


def tiny_content() -> dict[str, Any]:
    """Return a copy of the valid annotation file's content."""
    return copy.deepcopy(CONTENT)


def write_tiny(folder: Path, content: dict[str, Any] | bytes | None = None) -> CocoConfig:
    """Write the images and an annotation file with this content (default: the valid one); return the config for it."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in (11, 12, 13, 14):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    content = tiny_content() if content is None else content
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "annotations.json").write_bytes(data)
    return CocoConfig(images=folder / "images", annotations=folder / "annotations.json")


def totals_add_up(report: DataReport) -> bool:
    """Return whether read = used + skipped, for images and for annotations."""
    return all(
        total["read"] == total["used"] + sum(case["count"] for case in report.as_json()["skipped"][kind].values())
        for kind, total in report.as_json()["totals"].items()
    )


def open_tiny(folder: Path, content: dict[str, Any] | bytes | None = None, policy="error", **changes) -> CocoDataset:
    """Write the tiny data set with this content, and open it."""
    return CocoDataset(policy, write_tiny(folder, content).replace(**changes))
