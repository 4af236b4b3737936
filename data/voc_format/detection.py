"""Detection data sets in PASCAL VOC's layout."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray
from pydantic import Field

from ...formats import VocAnnotation, VocCorners, check_image, image_size, read_class_names, read_voc_annotation
from ...structures import UsageError, suggest
from ..dataset import DATASETS
from ..file_checks import check_files
from ..objects import Objects
from ..report import DataReport, Policy
from ..types import Record
from .folder import BACKGROUND, VOC_CLASSES, ListedImage, VocFolderConfig, VocImages, list_images
from .objects import tabulate

Metric = Literal["voc07", "voc12", "coco"]


class VocConfig(VocFolderConfig):
    """A detection data set in PASCAL VOC's layout, with the image lists of ``ImageSets/Main``."""

    name: Literal["voc"] = "voc"
    annotations: str = "Annotations"
    """The folder of the annotation files below the root; ``.`` is the root itself."""
    corners: VocCorners = "inclusive"
    """Convention of the corners of boxes in the files. ``inclusive``: pixels are counted from 1 and a box includes its
    last row and column, as in VOC's development kit and detectron2. ``continuous``: coordinates from 0, as labelImg,
    LabelMe, CVAT and Datumaro write them. ``shifted``: continuous coordinates plus 1, as MMDetection 3 reads them and
    earlier versions of supervision wrote them."""
    use_difficult: bool = False
    """Use difficult objects for training; otherwise they are ignore regions. VOC's metrics never count them."""
    min_box: float = Field(default=1.0, ge=0)
    """Objects with a side shorter than this, in original pixels, are not used for training."""
    metrics: tuple[Metric, ...] = Field(default=("voc12",), min_length=1)
    """The metrics for predictions, the main one first. ``voc07``: VOC's AP50 at eleven points of recall (VOC2007);
    ``voc12``: VOC's AP50 as the area under the curve (since VOC2010); ``coco``: COCO's metrics."""


@DATASETS.register("voc", VocConfig)
class VocDetection(VocImages):
    """A detection data set in PASCAL VOC's layout.

    The id of an image is its file stem, preceded by the folder if the split has one (``VOC2007/000005``).
    """

    task: ClassVar[str] = "detection"
    config: VocConfig

    def __init__(self, policy: Policy, config: VocConfig) -> None:
        self.config, self.metrics = config, config.metrics
        self.report = report = DataReport(policy, config.root)
        self.class_names, known = _choose_classes(config)
        self.category_ids = tuple(known.index(name) + 1 for name in self.class_names)
        images = list_images(config, "Main", f"{config.annotations}/*.xml", report)
        files = _ListedFiles(images, known, config)
        usable = check_files([image.image_id for image in images], files.check, report)
        report.read["images"] = len(images)
        indices = np.flatnonzero(usable).tolist()
        report.require_usable(len(indices), "check the path and the lists")
        files.skip_objects_of(np.flatnonzero(~usable).tolist(), report)
        self._store_images([images[index].image_id for index in indices], [files.paths[index] for index in indices])
        self._sizes = np.array([files.sizes[index] for index in indices], np.int64)
        self._objects = tabulate(
            {images[index].image_id: files.annotations[index] for index in indices}, self._sizes, self.class_names,
            report=report, min_box=config.min_box, convention=config.corners,
        )  # fmt: skip
        report.require_usable(len(indices), "check the path and the lists")

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image, as declared in the annotations and verified in the image headers."""
        return self._sizes

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Return the (image index, label) pairs of the objects for training; difficult ones if ``use_difficult``."""
        table = self._objects
        pairs = np.stack([np.repeat(np.arange(len(self)), np.diff(table.starts)), table.labels], axis=1)
        return pairs[self._is_trained()]

    def object_boxes(self) -> Float32[ndarray, "p 4"]:
        """Return the boxes of the objects for training, clipped to their images."""
        return self._objects.boxes[self._is_trained()]

    def _is_trained(self) -> Bool[ndarray, " n"]:
        """Return for each object whether it is used for training."""
        return self._objects.trainable & (self.config.use_difficult | ~self._objects.difficult)

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the objects to a record; difficult ones are in ``ignored`` unless ``use_difficult``."""
        rows, ignored = self._rows_of(index)
        boxes, labels = self._objects.boxes, self._objects.labels
        return replace(record, objects=Objects(boxes[rows], labels[rows], ignored=boxes[ignored]))

    def _rows_of(self, index: int) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " m"]]:
        """Return the rows of an image's objects for training, and of its ignore regions."""
        table = self._objects
        rows = np.arange(table.starts[index], table.starts[index + 1])
        rows = rows[table.trainable[rows]]
        ignored = table.difficult[rows] & (not self.config.use_difficult)
        return rows[~ignored], rows[ignored]

    def annotation_digest(self) -> str:
        """Return the SHA-256 of the annotations of all objects."""
        table, digest = self._objects, hashlib.sha256()
        for column in (table.starts, table.corners, table.labels, table.difficult):
            digest.update(column.tobytes())
        return digest.hexdigest()

    def ground_truth(self) -> dict[str, Any]:
        """Return all valid objects, with the boxes as annotated, as a dict in COCO's format.

        Difficult and small objects are included, since evaluators have their own rules for them. A difficult object has
        ``difficult: 1`` for VOC's metric and ``iscrowd: 1`` for COCO's, where neither missing it nor a detection that
        lies at least half inside it counts as an error.
        """
        images = [
            {"id": image_id, "file_name": Path(self.file_name(index)).name, "height": size[0], "width": size[1]}
            for index, (image_id, size) in enumerate(zip(self.image_ids, self._sizes.tolist(), strict=True))
        ]
        annotations = []
        for row, (index, box, label, difficult) in enumerate(self._objects.rows()):
            annotations.append({
                "id": row + 1, "image_id": self.image_ids[index], "category_id": self.category_ids[label],
                "bbox": box, "area": box[2] * box[3], "iscrowd": int(difficult), "difficult": int(difficult),
            })  # fmt: skip
        categories = [
            {"id": category_id, "name": name}
            for category_id, name in zip(self.category_ids, self.class_names, strict=True)
        ]
        return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _choose_classes(config: VocFolderConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes of the labels, in their order, and all classes that objects in the annotations may have.

    The config selects from the classes in ``class_names.txt``. Without that file, it may name classes other than VOC's.
    """
    listed = read_class_names(config.root)
    known = VOC_CLASSES if listed is None else listed[listed[0] == BACKGROUND :]
    selected = known if config.class_names is None else config.class_names
    unknown = [name for name in selected if name not in known]
    if unknown and listed is not None:
        raise UsageError(f"there is no class {unknown[0]!r} in class_names.txt", suggest(unknown[0], known))
    return selected, selected if unknown else known


class _ListedFiles:
    """The annotations, image paths and image sizes of the listed images, by index in the list."""

    def __init__(self, images: list[ListedImage], class_names: tuple[str, ...], config: VocConfig) -> None:
        self._images, self._class_names, self._config = images, class_names, config
        self.annotations: dict[int, VocAnnotation] = {}
        self.paths: dict[int, Path] = {}
        self.sizes: dict[int, tuple[int, int]] = {}

    def check(self, index: int) -> list[str]:
        """Read an annotation and check its image file; return the cases for the report, or raise DataError if one of
        the two is unusable."""
        image = self._images[index]
        annotation_file = image.folder / self._config.annotations / f"{image.stem}.xml"
        annotation = read_voc_annotation(annotation_file, image.image_id, self._class_names)
        self.annotations[index] = annotation
        path = self.paths[index] = image.find_file(self._config.allow_outside)
        cases = check_image(path, annotation.size, image.image_id)
        if annotation.size is None:
            cases = [*cases, "size-from-image"]
        self.sizes[index] = annotation.size or image_size(path, image.image_id)
        return cases

    def skip_objects_of(self, indices: list[int], report: DataReport) -> None:
        """Count the objects of unusable images as skipped."""
        for index in indices:
            if index in self.annotations:
                count = len(self.annotations[index].objects)
                report.read["annotations"] += count
                for number in range(1, count + 1):
                    report.skip("annotations", "on-skipped-image", f"{self._images[index].image_id}#{number}")
