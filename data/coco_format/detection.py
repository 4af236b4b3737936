"""Detection data in COCO's format."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray
from pydantic import Field

from ...structures import DataError, MaskFormat
from ..dataset import DATASETS, Dataset, select_image_labels
from ..file_checks import check_files
from ..image_files import ImageFilesConfig, read_image_record
from ..images import check_image
from ..objects import Objects
from ..report import DataReport, Policy
from ..types import Record
from .annotations import CocoAnnotations, read_annotations
from .json_file import read_json


class CocoConfig(ImageFilesConfig):
    """A folder of images and a COCO annotation file."""

    name: Literal["coco"] = "coco"
    images: Path
    annotations: Path
    class_names: tuple[str, ...] | None = None
    """Which classes, in which order; None takes all of the file, by id."""
    masks: bool = False
    """Read the objects' masks too, and score predicted ones; then an object without a mask is bad data."""
    mask_format: MaskFormat = "bitmaps"
    """What they come to a head as: pixels, or the polygons, exact at any size, which a mask branch with
    ``truth="polygons"`` learns from. Run lengths become the outlines of their pixels. Until an image is resized its
    bitmaps take a byte for each object and each of its pixels, beside those of the resized image: 1.2 GB, at times
    1.6, for 100 objects in 12 million pixels, in every worker. Polygons take next to nothing."""
    min_box: float = Field(default=1.0, ge=0)
    """Objects with a shorter side, in original pixels, are not trained on."""
    subset: int | None = Field(default=None, gt=0)
    """The first images of the file only."""
    keep_empty: bool = True
    """Keep images without objects: they teach what background is."""
    allow_outside: bool = False
    """Accept file names that lead out of the image folder."""

    def classes(self) -> tuple[str, ...]:
        """The class names, as far as the config states them."""
        return self.class_names if self.class_names is not None else super().classes()


@DATASETS.register("coco", CocoConfig)
class CocoDataset(Dataset):
    """COCO's images, boxes and masks; crowds are regions to ignore."""

    task: ClassVar[str] = "detection"

    def __init__(self, policy: Policy, config: CocoConfig, boxes: bool = True) -> None:
        """Without ``boxes`` nothing is asked of them, and none are read: who draws maps has no use for them."""
        self.config, self.masks, self.mask_format = config, config.masks, config.mask_format
        self.report = DataReport(policy, config.annotations)
        annotations = read_annotations(
            config.annotations,
            self.report,
            class_names=config.class_names,
            min_box=config.min_box if boxes else None,
            masks=config.mask_format if config.masks else None,
            subset=config.subset,
        )
        self.class_names, self.category_ids = annotations.class_names, annotations.category_ids
        self._root = Path(config.images)
        self.annotations = annotations
        counts = np.diff(annotations.starts)
        usable = self._check_files(annotations)
        self._skip_annotations_of(~usable, "on-skipped-image")
        self._count(annotations, usable, counts)
        if not config.keep_empty:
            for place in np.flatnonzero(usable & (counts == 0)).tolist():
                self.report.skip("images", "without-objects", self._id(place))
            usable &= counts > 0
        self.places = np.flatnonzero(usable)
        self.report.require_images(len(self.places), "check the paths and classes")
        self.image_ids = annotations.image_ids[self.places].tolist()

    def __len__(self) -> int:
        return len(self.places)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """As the file declares them, and the images were found to be."""
        return self.annotations.sizes[self.places]

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Crowds are no objects."""
        starts, labels = self.annotations.starts, self.annotations.labels
        pairs = np.stack([np.repeat(np.arange(len(starts) - 1), np.diff(starts)), labels], axis=1)
        return select_image_labels(pairs[~self.annotations.crowd], self.places, len(starts) - 1)

    def read_image(self, index: int) -> Record:
        """The image alone."""
        place = self.places[index].item()
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
        first, last = self.annotations.starts[self.places[index] :][:2].tolist()
        return np.arange(first, last)

    def ground_truth(self) -> dict[str, Any]:
        """The file's own entries of these images and classes; ``iscrowd`` and ids filled in where missing.

        An area that is missing stays so: it is the box's or the mask's, whichever an evaluator compares.

        Objects that were too small to train on count here: an evaluator has rules of its own for them.
        """
        data, annotations = read_json(self.config.annotations), self.annotations
        images = [data["images"][row] for row in annotations.image_rows[self.places]]
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
        with Path(self.config.annotations).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _id(self, place: int) -> int | str:
        return self.annotations.image_ids[place].item()

    def _path(self, place: int) -> Path:
        return self._root / self.annotations.file_names[place].decode()

    def _check_files(self, annotations: CocoAnnotations) -> Bool[ndarray, " n"]:
        """Whether each image file is there and is what the annotations say."""
        root = self._root.resolve()

        def check(place: int) -> list[str]:
            path, size = self._path(place), annotations.sizes[place]
            if not self.config.allow_outside and not path.resolve().is_relative_to(root):
                raise DataError(
                    f"the file name leads out of the image folder {self._root}", "set allow_outside if it may",
                    case="outside-root", file=path, image_id=self._id(place),
                )  # fmt: skip
            return check_image(path, (int(size[0]), int(size[1])), self._id(place))

        return check_files(annotations.image_ids.tolist(), check, self.report)

    def _skip_annotations_of(self, skipped: Bool[ndarray, " n"], case: str) -> None:
        for place in np.flatnonzero(skipped).tolist():
            for row in range(self.annotations.starts[place], self.annotations.starts[place + 1]):
                self.report.skip("annotations", case, f"row {self.annotations.rows[row]}")

    def _count(self, annotations: CocoAnnotations, usable: Bool[ndarray, " n"], counts: ndarray) -> None:
        """Note what a person would want to know: images without objects, crowds."""
        for place in np.flatnonzero(usable & (counts == 0)).tolist():
            self.report.note("image-without-objects", self._id(place))
        for row in annotations.rows[annotations.crowd]:
            self.report.note("crowd", f"row {row}")


def _completed(entry: dict[str, Any], row: int) -> dict[str, Any]:
    """The entry with what it leaves out; true stands for 1."""
    return {"id": -1 - row, **entry, "iscrowd": int(entry.get("iscrowd", 0))}
