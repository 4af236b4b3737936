"""Writer of generated scenes in COCO's panoptic format: ``annotations/panoptic_*.json`` and folders of PNG files."""

from pathlib import Path
from typing import Any

import numpy as np

from ...formats.panoptic import write_panoptic_json, write_segments
from ...structures import IGNORE, VOID
from .coco_writer import CATEGORY_IDS, CocoWriter
from .scene import Scene, Split
from .shape_polygons import CLASS_NAMES
from .stuff import STUFF_NAMES

STUFF_IDS = (95, 100, 118, 199)
"""The category id of each stuff class; the ids have gaps, like those of things."""

_ID_STEP = 66_051
"""Difference of consecutive segment ids. It has another value in each color channel, so that swapped channels show."""


class PanopticWriter:
    """A writer of one split in COCO's panoptic format, scene by scene, with the images and ids of a CocoWriter."""

    def __init__(self, root: Path, split: Split, images: CocoWriter) -> None:
        self._file = root / "annotations" / f"panoptic_{split}.json"
        self._folder = self._file.with_suffix("")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._images = images
        self._annotations: list[dict[str, Any]] = []

    def add(self, scene: Scene) -> None:
        """Write the PNG file of the scene that the CocoWriter wrote last, and collect its segments."""
        assert scene.stuff is not None, "panoptic scenes are drawn with stuff"
        image = self._images.images[-1]
        ids = np.full(scene.stuff.shape, VOID, np.int32)
        segments: list[dict[str, Any]] = []

        def add_segment(mask: np.ndarray, **fields: int) -> None:
            segments.append({"id": (len(segments) + 1) * _ID_STEP, **fields})
            ids[mask] = segments[-1]["id"]

        hidden = np.zeros(scene.stuff.shape, bool)
        for obj in scene.objects:
            add_segment(obj.mask, category_id=CATEGORY_IDS[obj.label], iscrowd=int(obj.crowd))
            hidden |= obj.mask
        for label in np.unique(scene.stuff[~hidden]).tolist():
            if label != IGNORE:
                add_segment((scene.stuff == label) & ~hidden, category_id=STUFF_IDS[label])
        path = self._folder / Path(image["file_name"]).with_suffix(".png").name
        self._annotations.append(write_segments(path, ids, segments, image["id"]))

    def finish(self) -> None:
        """Write the JSON file."""
        named = [
            *((name, category_id, 1) for name, category_id in zip(CLASS_NAMES, CATEGORY_IDS, strict=True)),
            *((name, category_id, 0) for name, category_id in zip(STUFF_NAMES, STUFF_IDS, strict=True)),
        ]
        categories = [
            {"id": category_id, "name": name, "isthing": is_thing, "supercategory": "shape" if is_thing else "texture"}
            for name, category_id, is_thing in named
        ]
        write_panoptic_json(self._file, self._images.images, self._annotations, categories)
