"""The objects of many PASCAL VOC annotations as flat arrays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from ...structures import DataError
from ..box_clipping import clip_boxes_to_images
from ..report import DataReport
from .annotations import VocAnnotation, VocObject


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """Objects in the order of their images; those of image ``i`` are ``starts[i]:starts[i + 1]``."""

    starts: Int64[ndarray, " m1"]
    corners: Float64[ndarray, "n 4"]  # xyxy, as annotated
    boxes: Float32[ndarray, "n 4"]  # the same, clipped to the image
    labels: Int64[ndarray, " n"]
    difficult: Bool[ndarray, " n"]
    learnable: Bool[ndarray, " n"]  # inside the image and not too small

    def rows(self) -> Iterator[tuple[int, list[float], int, bool]]:
        """Of each object the place of its image, the box as annotated (x, y, width, height), label and difficult."""
        places = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        sides = self.corners[:, 2:] - self.corners[:, :2]
        boxes = np.concatenate([self.corners[:, :2], sides], axis=1)
        return zip(places.tolist(), boxes.tolist(), self.labels.tolist(), self.difficult.tolist(), strict=True)


def tabulate(
    annotations: Mapping[str, VocAnnotation],
    sizes: Int64[ndarray, "m 2"],
    class_names: Sequence[str],
    *,
    report: DataReport,
    min_box: float,
) -> ObjectTable:
    """The objects of these classes on images of ``sizes`` (height, width); the report gets what is unusable, and what
    a person would want to know."""
    chosen = [_choose(annotation, class_names, report) for annotation in annotations.values()]
    objects = [thing for own in chosen for thing in own]
    counts = [len(own) for own in chosen]
    for image_id, count in zip(annotations, counts, strict=True):
        if not count:
            report.note("image-without-objects", image_id)
    for name in sorted(set(class_names) - {thing.name for thing in objects}):
        report.note("class-without-objects", name)
    corners = np.array([thing.corners() for thing in objects], np.float64).reshape(-1, 4)
    boxes, learnable = clip_boxes_to_images(
        corners, np.repeat(sizes, counts, axis=0), lambda row: objects[row].identity,
        report=report, min_box=min_box,
    )  # fmt: skip
    labels = {name: label for label, name in enumerate(class_names)}
    return ObjectTable(
        starts=np.concatenate([[0], np.cumsum(counts)]),
        corners=corners,
        boxes=boxes.astype(np.float32),
        labels=np.array([labels[thing.name] for thing in objects], np.int64),
        difficult=np.array([thing.difficult for thing in objects], bool),
        learnable=learnable,
    )


def _choose(annotation: VocAnnotation, class_names: Sequence[str], report: DataReport) -> list[VocObject]:
    """The usable objects of these classes on one image."""
    chosen = []
    for thing in annotation.objects:
        report.read["annotations"] += 1
        if isinstance(thing, DataError):
            report.fault("annotations", thing)
        elif thing.name not in class_names:
            report.skip("annotations", "other-class", thing.identity)
        else:
            chosen.append(thing)
            if thing.difficult:
                report.note("difficult", thing.identity)
    return chosen
