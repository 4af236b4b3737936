"""Writer of scenes in COCO's layout: PNG images in ``train/`` and ``val/``, and ``annotations/instances_*.json``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from ...formats.mask_polygons import mask_to_polygons
from .scene import SPLITS, Scene, SceneObject, Split
from .shape_polygons import CLASS_NAMES

CATEGORY_IDS = (1, 3, 4, 7, 12, 18, 44, 90)
"""The category id of each label. As in COCO, the ids have gaps, so that confusing labels with ids is noticed."""

_FIRST_VAL_ID = 1_000_000


class CocoWriter:
    """A writer of one split in COCO's layout, scene by scene."""

    def __init__(self, root: Path, split: Split) -> None:
        self._images_folder = root / split
        self._annotation_file = root / "annotations" / f"instances_{split}.json"
        for folder in (self._images_folder, self._annotation_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        # The splits have no ids in common, so that confusing them is noticed.
        self._offset = SPLITS.index(split) * _FIRST_VAL_ID
        self.images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, scene: Scene) -> None:
        """Write the image of the next scene, and collect its annotations."""
        image_id = self._offset + len(self.images) + 1
        height, width = scene.image.shape[:2]
        name = f"{image_id:07d}.png"
        Image.fromarray(scene.image).save(self._images_folder / name, compress_level=1)
        self.images.append({"id": image_id, "license": 1, "file_name": name, "height": height, "width": width})
        self._annotations += [
            {"id": self._offset + len(self._annotations) + number, "image_id": image_id, **_annotation(obj)}
            for number, obj in enumerate(scene.objects, start=1)
        ]

    def finish(self) -> None:
        """Write the annotation file."""
        content = {
            "info": {"description": "Shapes drawn by Vertebra", "version": "1"},
            "licenses": [{"id": 1, "name": "CC0-1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
            "images": self.images,
            "categories": [
                {"id": category_id, "name": name, "supercategory": "shape"}
                for category_id, name in zip(CATEGORY_IDS, CLASS_NAMES, strict=True)
            ],
            "annotations": self._annotations,
        }
        self._annotation_file.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _annotation(obj: SceneObject) -> dict[str, Any]:
    x1, y1, x2, y2 = obj.box
    return {
        "category_id": CATEGORY_IDS[obj.label],
        "iscrowd": int(obj.crowd),
        "area": float(obj.area),
        "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
        "segmentation": _uncompressed_rle(obj.mask) if obj.crowd else mask_to_polygons(obj.mask),
    }


def _uncompressed_rle(mask: Bool[np.ndarray, "h w"]) -> dict[str, list[int]]:
    """Return COCO's uncompressed RLE: the lengths of runs of 0, 1, 0, ... down the columns, beginning with 0."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=len(pixels)).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if pixels[0] else counts}
