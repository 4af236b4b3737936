"""Scenes as a COCO folder: ``train/ val/`` with PNG images, ``annotations/instances_{train,val}.json``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from .polygons import mask_to_polygons
from .scene import SPLITS, Scene, SceneObject, Split
from .shape_polygons import CLASS_NAMES

CATEGORY_IDS = (1, 3, 4, 7, 12, 18, 44, 90)
"""The file's id of each label: with gaps, as in COCO, so that nobody takes one for the other."""

_FIRST_VAL_ID = 1_000_000


class CocoWriter:
    """Writes one split, scene by scene."""

    def __init__(self, root: Path, split: Split) -> None:
        self._images_folder = root / split
        self._annotation_file = root / "annotations" / f"instances_{split}.json"
        for folder in (self._images_folder, self._annotation_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        # No id is in both splits, so that a mix-up of the two is noticed.
        self._offset = SPLITS.index(split) * _FIRST_VAL_ID
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, scene: Scene) -> None:
        """Write the next scene's image and note its objects."""
        identity = self._offset + len(self._images) + 1
        height, width = scene.image.shape[:2]
        name = f"{identity:07d}.png"
        Image.fromarray(scene.image).save(self._images_folder / name, compress_level=1)
        self._images.append({"id": identity, "license": 1, "file_name": name, "height": height, "width": width})
        self._annotations += [
            {"id": self._offset + len(self._annotations) + number, "image_id": identity, **_describe(thing)}
            for number, thing in enumerate(scene.objects, start=1)
        ]

    def finish(self) -> None:
        """Write the annotation file."""
        content = {
            "info": {"description": "Shapes drawn by Vertebra", "version": "1"},
            "licenses": [{"id": 1, "name": "CC0-1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
            "images": self._images,
            "categories": [
                {"id": identity, "name": name, "supercategory": "shape"}
                for identity, name in zip(CATEGORY_IDS, CLASS_NAMES, strict=True)
            ],
            "annotations": self._annotations,
        }
        self._annotation_file.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _describe(thing: SceneObject) -> dict[str, Any]:
    x1, y1, x2, y2 = thing.box
    return {
        "category_id": CATEGORY_IDS[thing.label],
        "iscrowd": int(thing.crowd),
        "area": float(thing.area),
        "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
        "segmentation": _run_lengths(thing.mask) if thing.crowd else mask_to_polygons(thing.mask),
    }


def _run_lengths(mask: Bool[np.ndarray, "h w"]) -> dict[str, list[int]]:
    """COCO's uncompressed RLE: lengths of the runs of 0, 1, 0 ... down the columns, the first of them of 0."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=len(pixels)).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if pixels[0] else counts}
