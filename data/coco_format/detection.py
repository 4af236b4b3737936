"""Detection data sets in COCO's format, or in one that is read as COCO's."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from ...formats.coco_corrections import correct_document
from ...formats.segmentations import box_of_segmentation
from ...structures import DataError
from ..dataset import DATASETS, Dataset, is_on_images, select_image_labels
from ..image_files import read_image_record
from ..object_fields import Keypoints
from ..objects import Objects
from ..report import DataReport, Policy
from ..types import Record
from .opening import CocoConfig, ObjectsConfig, open_objects


@DATASETS.register("coco", CocoConfig)
class CocoDataset(Dataset):
    """A detection data set in COCO's format, with boxes, masks and keypoints; crowds are ignore regions."""

    task: ClassVar[str] = "detection"

    def __init__(self, policy: Policy, config: ObjectsConfig, boxes: bool = True) -> None:
        """Open and validate the data set; ``boxes=False``, for class maps, neither reads nor checks boxes."""
        self.config, self.masks, self.mask_format = config, config.masks, config.mask_format
        self._source, self._folder = config.source(), config.image_folder()
        self.report = DataReport(policy, self._source.path)
        self.annotations, self.indices, self._digest = open_objects(config, self._source, boxes, self.report)
        self.class_names, self.category_ids = self.annotations.class_names, self.annotations.category_ids
        self.skeleton = self.annotations.skeleton
        self.image_ids = self.annotations.image_ids[self.indices].tolist()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image, as declared in the file and verified in the image headers."""
        return self.annotations.sizes[self.indices]

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Return the (image index, label) pairs of all objects, without crowds."""
        pairs = np.stack([self._image_of_objects(), self.annotations.labels], axis=1)
        return select_image_labels(pairs[~self.annotations.crowd], self.indices, len(self.annotations.starts) - 1)

    def object_boxes(self) -> Float32[ndarray, "p 4"]:
        """Return the boxes of all objects, without crowds, clipped to their images."""
        used = is_on_images(self._image_of_objects(), self.indices, len(self.annotations.starts) - 1)
        return self.annotations.boxes[used & ~self.annotations.crowd]

    def _image_of_objects(self) -> Int64[ndarray, " n"]:
        """Return for each row of ``annotations`` the index of its image among all images of the file."""
        starts = self.annotations.starts
        return np.repeat(np.arange(len(starts) - 1), np.diff(starts))

    def file_name(self, index: int) -> str:
        return str(self._folder / self.annotations.file_names[self.indices[index]].item().decode())

    def read_image(self, index: int) -> Record:
        image_id = self.annotations.image_ids[self.indices[index]].item()
        return read_image_record(self.file_name(index), image_id, self.config.decode_short_side)

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the objects to a record; crowds are in ``ignored``."""
        rows, annotations = self.rows_of(index), self.annotations
        is_crowd = annotations.crowd[rows]
        objects, crowds = rows[~is_crowd], rows[is_crowd]
        mask_rows, size = objects.tolist(), record.full_size
        masks = None if annotations.masks is None else annotations.masks.decode(mask_rows, size)
        polygon_masks = None if annotations.polygon_masks is None else annotations.polygon_masks.decode(mask_rows, size)
        boxes, labels, keypoints = annotations.boxes, annotations.labels, None
        if self.skeleton is not None:
            keypoints = Keypoints(annotations.keypoints[objects], self.skeleton.flip_order)
        table = Objects(boxes[objects], labels[objects], boxes[crowds], masks, polygon_masks, keypoints=keypoints)
        return replace(record, objects=table)

    def rows_of(self, index: int) -> Int64[ndarray, " n"]:
        """Return the indices of an image's objects and crowds in the arrays of ``annotations``."""
        image = self.indices[index]
        start, end = self.annotations.starts[image : image + 2].tolist()
        return np.arange(start, end)

    def ground_truth(self) -> dict[str, Any]:
        """Return the file's entries for the images and classes of the data set, as a dict in COCO's format.

        Entries are corrected by :func:`correct_entry`; missing sizes, ids and ``iscrowd`` are filled in, and ids that
        two annotations have are replaced. A missing area stays missing, since it depends on whether boxes or masks are
        evaluated. Objects below ``min_box`` are included, since evaluators have their own rules for small objects.
        Raises DataError if the file has changed since it was opened.
        """
        data, digest = self._source.read_document()
        if digest != self._digest:
            raise DataError(
                "the annotations were changed while they were in use", "start again, or put them back as they were",
                case="changed-file", file=self._source.path,
            )  # fmt: skip
        annotations = self.annotations
        correct_document(data)
        images = [
            {**data["images"][row], "height": height, "width": width}
            for row, (height, width) in zip(
                annotations.image_rows[self.indices].tolist(), self.sizes.tolist(), strict=True
            )
        ]
        sizes = {image["id"]: (image["height"], image["width"]) for image in images}
        category_ids = set(self.category_ids)
        rejected = self.report.rejected_rows
        given_ids: set[int | str] = set()
        entries = [
            _complete(entry, row, sizes[entry["image_id"]], given_ids)
            for row, entry in enumerate(data["annotations"])
            if row not in rejected and entry["image_id"] in sizes and entry["category_id"] in category_ids
        ]
        categories = {category["id"]: category for category in data["categories"]}
        chosen = [categories[category_id] for category_id in self.category_ids]
        return {"info": {}, "images": images, "annotations": entries, "categories": chosen}

    def annotation_digest(self) -> str:
        """Return the SHA-256 of the annotation file, or of the annotations in another format."""
        return self._digest


def _complete(entry: dict[str, Any], row: int, size: tuple[int, int], given_ids: set[int | str]) -> dict[str, Any]:
    """Return an annotation with its box filled in, ``iscrowd`` as an int, and an id that is not in ``given_ids``."""
    annotation_id = entry.get("id")
    if annotation_id is None or annotation_id in given_ids:
        annotation_id = -1 - row
    given_ids.add(annotation_id)
    completed = {**entry, "id": annotation_id, "iscrowd": int(entry.get("iscrowd", 0))}
    if (
        entry.get("bbox") is None
        and entry.get("segmentation")
        and (box := box_of_segmentation(entry["segmentation"], size))
    ):
        completed["bbox"] = box
    return completed
