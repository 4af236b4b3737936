"""The objects of many PASCAL VOC annotations as flat arrays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from ...formats import VocAnnotation, VocCorners, VocObject
from ...structures import DataError
from ..box_clipping import clip_boxes_to_images
from ..report import DataReport


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """The objects of many images, sorted by image; image ``i`` has the objects ``starts[i]:starts[i + 1]``."""

    starts: Int64[ndarray, " m1"]
    corners: Float64[ndarray, "n 4"]
    """The boxes as annotated, as continuous xyxy."""
    boxes: Float32[ndarray, "n 4"]
    """The boxes clipped to their image, xyxy."""
    labels: Int64[ndarray, " n"]
    difficult: Bool[ndarray, " n"]
    trainable: Bool[ndarray, " n"]
    """True for each object that is used for training: its box is inside the image and not too small."""

    def rows(self) -> Iterator[tuple[int, list[float], int, bool]]:
        """Yield (image index, annotated box as x, y, width, height, label, whether it is difficult) for each object."""
        images = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        sides = self.corners[:, 2:] - self.corners[:, :2]
        boxes = np.concatenate([self.corners[:, :2], sides], axis=1)
        return zip(images.tolist(), boxes.tolist(), self.labels.tolist(), self.difficult.tolist(), strict=True)


def tabulate(
    annotations: Mapping[str, VocAnnotation],
    sizes: Int64[ndarray, "m 2"],
    class_names: Sequence[str],
    *,
    report: DataReport,
    min_box: float,
    convention: VocCorners,
) -> ObjectTable:
    """Return the table of the objects of these classes; ``sizes`` are the (height, width) of the images.

    The report counts or raises unusable objects, and counts images and classes without objects.
    """
    objects_by_image = [_select_objects(annotation, class_names, report) for annotation in annotations.values()]
    objects = [item for image_objects in objects_by_image for item in image_objects]
    counts = [len(image_objects) for image_objects in objects_by_image]
    for image_id, count in zip(annotations, counts, strict=True):
        if not count:
            report.note("image-without-objects", image_id)
    for name in sorted(set(class_names) - {item.name for item in objects}):
        report.note("class-without-objects", name)
    corners = np.array([item.corners(convention) for item in objects], np.float64).reshape(-1, 4)
    boxes, trainable = clip_boxes_to_images(
        corners, np.repeat(sizes, counts, axis=0), lambda row: objects[row].id, report=report, min_box=min_box
    )
    labels = {name: label for label, name in enumerate(class_names)}
    return ObjectTable(
        starts=np.concatenate([[0], np.cumsum(counts)]),
        corners=corners,
        boxes=boxes.astype(np.float32),
        labels=np.array([labels[item.name] for item in objects], np.int64),
        difficult=np.array([item.difficult for item in objects], bool),
        trainable=trainable,
    )


def _select_objects(annotation: VocAnnotation, class_names: Sequence[str], report: DataReport) -> list[VocObject]:
    """Return the usable objects of these classes on one image; the others are rejected or skipped in the report."""
    selected = []
    for item in annotation.objects:
        report.read["annotations"] += 1
        if isinstance(item, DataError):
            report.reject("annotations", item)
        elif item.name not in class_names:
            report.skip("annotations", "other-class", item.id)
        else:
            selected.append(item)
            if item.difficult:
                report.note("difficult", item.id)
    return selected
