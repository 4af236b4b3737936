"""Detection data in COCO's format."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from ...formats.json_files import read_json
from ..dataset import DATASETS, Dataset, select_image_labels
from ..image_files import read_image_record
from ..objects import Objects
from ..report import DataReport, Policy
from ..types import Record
from .opening import CocoConfig, open_coco


@DATASETS.register("coco", CocoConfig)
class CocoDataset(Dataset):
    """COCO's images, boxes and masks; crowds are regions to ignore."""

    task: ClassVar[str] = "detection"

    def __init__(self, policy: Policy, config: CocoConfig, boxes: bool = True) -> None:
        """Without ``boxes`` nothing is asked of them, and none are read: who draws maps has no use for them."""
        self.config, self.masks, self.mask_format = config, config.masks, config.mask_format
        self.report = DataReport(policy, config.annotations)
        self.annotations, self.indices, self._digest = open_coco(config, boxes, self.report)
        self.class_names, self.category_ids = self.annotations.class_names, self.annotations.category_ids
        self.image_ids = self.annotations.image_ids[self.indices].tolist()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """As the file declares them, and the images were found to be."""
        return self.annotations.sizes[self.indices]

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Crowds are no objects."""
        starts, labels = self.annotations.starts, self.annotations.labels
        pairs = np.stack([np.repeat(np.arange(len(starts) - 1), np.diff(starts)), labels], axis=1)
        return select_image_labels(pairs[~self.annotations.crowd], self.indices, len(starts) - 1)

    def read_image(self, index: int) -> Record:
        """The image alone."""
        place = self.indices[index].item()
        return read_image_record(self._path(place), self._id(place), self.config.decode_short_side)

    def add_annotations(self, record: Record, index: int) -> Record:
        """With its objects; crowds are in ``ignored``."""
        rows, annotations = self.rows_of(index), self.annotations
        crowds, objects = (rows[annotations.crowd[rows] == kind] for kind in (True, False))
        wanted, size = objects.tolist(), record.full_size
        masks = None if annotations.masks is None else annotations.masks.decode(wanted, size)
        polygon_masks = None if annotations.polygon_masks is None else annotations.polygon_masks.decode(wanted, size)
        boxes, labels = annotations.boxes, annotations.labels
        return replace(record, objects=Objects(boxes[objects], labels[objects], boxes[crowds], masks, polygon_masks))

    def rows_of(self, index: int) -> Int64[ndarray, " n"]:
        """Where the objects of an image stand in ``annotations``, crowds too."""
        first, last = self.annotations.starts[self.indices[index] :][:2].tolist()
        return np.arange(first, last)

    def ground_truth(self) -> dict[str, Any]:
        """The file's own entries of these images and classes; ``iscrowd`` and ids filled in where missing.

        An area that is missing stays so: it is the box's or the mask's, whichever an evaluator compares.

        Objects that were too small to train on count here: an evaluator has rules of its own for them.
        """
        data, annotations = read_json(self.config.annotations), self.annotations
        images = [data["images"][row] for row in annotations.image_rows[self.indices]]
        used = {image["id"] for image in images}
        faulty = self.report.faulty_rows
        wanted = set(self.category_ids)
        entries = [
            _completed(entry, row)
            for row, entry in enumerate(data["annotations"])
            if row not in faulty and entry["image_id"] in used and entry["category_id"] in wanted
        ]
        by_id = {category["id"]: category for category in data["categories"]}
        categories = [by_id[identity] for identity in self.category_ids]
        return {"info": {}, "images": images, "annotations": entries, "categories": categories}

    def annotation_digest(self) -> str:
        """That of the annotation file."""
        return self._digest

    def _id(self, place: int) -> int | str:
        return self.annotations.image_ids[place].item()

    def _path(self, place: int) -> Path:
        return self.config.images / self.annotations.file_names[place].decode()


def _completed(entry: dict[str, Any], row: int) -> dict[str, Any]:
    """The entry with what it leaves out; true stands for 1."""
    return {"id": -1 - row, **entry, "iscrowd": int(entry.get("iscrowd", 0))}
