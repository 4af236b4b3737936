"""Semantic segmentation data sets whose class maps are made from the masks of objects, such as those of a COCO file.

Conventions that differ between codebases are fields of the config. The defaults are those of torchvision's reference
scripts, whose published models are evaluated on COCO val2017 with the classes of PASCAL VOC.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy import ndarray
from pydantic import Field

from ...structures import IGNORE
from ..dataset import DATASETS, Dataset, LazyMaps, select_image_labels
from ..image_files import ImageFilesConfig
from ..report import Policy
from ..types import Record
from ..voc_format import BACKGROUND, VOC_CLASSES
from .detection import CocoDataset
from .masks import MaskTable
from .opening import CocoConfig, ObjectsConfig

COCO_NAMES_OF_VOC = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""COCO's names of the VOC classes that it names differently."""

Overlap = Literal["ignore", "ignore_other_class", "smallest"]


class ObjectsSemanticConfig(ImageFilesConfig):
    """Base class of the configs of class maps that are made from the masks of objects."""

    categories: Literal["all", "voc"] = "all"
    """``all``: all classes of the file. ``voc``: the 20 classes of VOC, under VOC's names; other objects are
    background."""
    overlap: Overlap = "ignore"
    """A pixel that several objects cover is ignored (``ignore``, as in torchvision), is ignored if the objects have
    different classes (``ignore_other_class``), or gets the class of the smallest object (``smallest``)."""
    crowd: Literal["class", "ignore"] = "class"
    """``class``: a crowd is treated like an object (torchvision). ``ignore``: pixels that only a crowd covers are
    ignored."""
    min_pixels: int = Field(default=0, ge=0)
    """Leave out images whose objects have this number of pixels or fewer in total; torchvision trains with 1000."""
    subset: int | None = Field(default=None, gt=0)
    """Use only this number of images, from the beginning of the file."""
    allow_outside: bool = False
    """Accept file names that point outside the image folder."""

    def classes(self) -> tuple[str, ...]:
        """Return the class names for ``categories="voc"``; raise UsageError if they are known only from the file."""
        return (BACKGROUND, *VOC_CLASSES) if self.categories == "voc" else super().classes()

    @abstractmethod
    def objects(self) -> ObjectsConfig:
        """Return the config of the data set of objects."""


class CocoSemanticConfig(ObjectsSemanticConfig):
    """A semantic segmentation data set: a folder of images, and a COCO annotation file with masks."""

    name: Literal["coco_semantic"] = "coco_semantic"
    images: Path
    annotations: Path

    def objects(self) -> ObjectsConfig:
        return CocoConfig(images=self.images, annotations=self.annotations)


@DATASETS.register("coco_semantic", CocoSemanticConfig)
class CocoSemantic(Dataset):
    """A semantic segmentation data set made from COCO's masks; label 0 is the background, 255 is ignored."""

    task: ClassVar[str] = "semantic"

    def __init__(self, policy: Policy, config: ObjectsSemanticConfig) -> None:
        self.config = config
        names_in_file = tuple(COCO_NAMES_OF_VOC.get(name, name) for name in VOC_CLASSES)
        objects = config.objects().replace(
            masks=True, subset=config.subset, allow_outside=config.allow_outside,
            class_names=names_in_file if config.categories == "voc" else None,
            decode_short_side=config.decode_short_side,
        )  # fmt: skip
        self._coco = coco = CocoDataset(policy, objects, boxes=False)
        self.report = coco.report
        self.class_names = (BACKGROUND, *(VOC_CLASSES if config.categories == "voc" else coco.class_names))
        # The background is not a category of the file: it gets the id 0, which COCO does not use.
        background_id = 0 if 0 not in coco.category_ids else max(coco.category_ids) + 1
        self.category_ids = (background_id, *coco.category_ids)
        self._indices = self._choose_images(config.min_pixels)
        self.report.require_usable(len(self._indices), "lower min_pixels")
        self.image_ids = [coco.image_ids[index] for index in self._indices.tolist()]

    def _choose_images(self, min_pixels: int) -> Int64[ndarray, " n"]:
        """Return the indices of the images whose objects have more than ``min_pixels`` pixels in total.

        The other images are skipped in the report.
        """
        if not min_pixels:
            return np.arange(len(self._coco))
        starts = self._coco.annotations.starts
        pixels_before = np.concatenate([[0], np.cumsum(self._masks.areas)])[starts]
        few = np.diff(pixels_before)[self._coco.indices] <= min_pixels
        for index in np.flatnonzero(few).tolist():
            self.report.skip("images", "few-pixels", self._coco.image_ids[index])
        return np.flatnonzero(~few)

    @property
    def _masks(self) -> MaskTable:
        masks = self._coco.annotations.masks
        assert masks is not None, "the data set was opened with masks=True"
        return masks

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image, as declared in the file and verified in the image headers."""
        return self._coco.sizes[self._indices]

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Return the (image index, label) pairs of all objects, without crowds but including hidden objects."""
        return select_image_labels(self._coco.image_labels() + np.array([0, 1]), self._indices, len(self._coco))

    def file_name(self, index: int) -> str:
        return self._coco.file_name(self._indices[index].item())

    def read_image(self, index: int) -> Record:
        return self._coco.read_image(self._indices[index].item())

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the class map to a record."""
        return replace(record, semantic=self._read_map(index))

    def annotation_digest(self) -> str:
        """Return the SHA-256 of the annotation file."""
        return self._coco.annotation_digest()

    def ground_truth(self) -> Any:
        """Return a mapping from image id to class map; a map is drawn on access."""
        return LazyMaps(self.image_ids, self._read_map)

    def _read_map(self, index: int) -> UInt8[ndarray, "h w"]:
        annotations, coco_index = self._coco.annotations, self._indices[index].item()
        height, width = annotations.sizes[self._coco.indices[coco_index]].tolist()
        rows = self._coco.rows_of(coco_index)
        ignored = annotations.crowd[rows] & (self.config.crowd == "ignore")
        objects, crowds = rows[~ignored], rows[ignored]
        largest_first = objects[np.argsort(-self._masks.areas[objects], kind="stable")].tolist()
        labels = (annotations.labels[largest_first] + 1).tolist()
        masks = self._decode(largest_first, (height, width))
        class_map = draw_class_map(zip(masks, labels, strict=True), (height, width), self.config.overlap)
        for mask in self._decode(crowds.tolist(), (height, width)):
            class_map[mask & (class_map == 0)] = IGNORE
        return class_map

    def _decode(self, rows: list[int], size: tuple[int, int]) -> Iterator[Bool[ndarray, "h w"]]:
        """Decode masks one at a time, since all masks of an image can take much more memory than the image."""
        return (self._masks.decode([row], size)[0].astype(bool) for row in rows)


def draw_class_map(
    objects: Iterable[tuple[Bool[ndarray, "h w"], int]], size: tuple[int, int], overlap: Overlap
) -> UInt8[ndarray, "h w"]:
    """Draw a class map of ``size`` (height, width) from (mask, label) pairs, sorted from largest to smallest.

    Pixels without an object are 0.
    """
    class_map = np.zeros(size, np.uint8)
    for mask, label in objects:
        before = class_map[mask]
        if overlap == "smallest":
            class_map[mask] = label
        else:
            other = before != 0 if overlap == "ignore" else (before != 0) & (before != label)
            class_map[mask] = np.where(other, IGNORE, label)
    return class_map
