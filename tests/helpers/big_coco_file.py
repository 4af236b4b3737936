"""A COCO file of any size whose images are all the same small picture, for measuring memory."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from vertebra.data import CocoConfig

SIDE = 32


def write_big(folder: Path, images: int, objects: int) -> CocoConfig:
    """Write a number of images, and a number of objects with polygons of 12 points, spread over them."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (90, 120, 60)).save(folder / "picture.jpg")
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    generator = np.random.default_rng(0)
    annotations = []
    circles = generator.uniform((10, 10, 4), (22, 22, 9), (objects, 3))
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    polygons = (circles[:, None, :2] + circles[:, None, 2:] * around).round(2).reshape(objects, -1)
    for number, ((x, y, radius), polygon) in enumerate(zip(circles.tolist(), polygons.tolist(), strict=True)):
        annotations.append({
            "id": number + 1, "image_id": number % images, "category_id": number % 80 + 1, "iscrowd": 0,
            "bbox": [x - radius, y - radius, 2 * radius, 2 * radius], "area": 3 * radius**2,
            "segmentation": [polygon],
        })  # fmt: skip
    content = {
        "images": [
            {"id": number, "file_name": "picture.jpg", "height": SIDE, "width": SIDE} for number in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": number + 1, "name": f"class {number}"} for number in range(80)],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return CocoConfig(images=folder, annotations=folder / "annotations.json", masks=True)
