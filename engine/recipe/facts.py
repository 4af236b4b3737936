"""Facts about a data set that a recipe depends on, read from its annotations without decoding an image."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from ...data import Dataset
from ...ops import join_first
from ...structures import UsageError


@dataclass(frozen=True, slots=True, eq=False)
class DataFacts:
    """Facts about the training and the validation images of an experiment."""

    train_images: int
    val_images: int
    sizes: Int64[ndarray, "n 2"]
    """(height, width) of each training image."""
    images_by_class: Mapping[str, int]
    """The number of training images with each class, without crowds; empty if it is unknown without reading files."""
    objects: int
    """The number of training objects, without crowds; 0 if there are none or it is unknown."""
    boxes: Float64[ndarray, "p 2"]
    """(width, height) of each training object in original pixels; empty for data without boxes."""
    box_images: Int64[ndarray, " p"]
    """The index of the training image of each box."""

    def short_side(self) -> int:
        """Return the median length of the short side of the training images, in pixels."""
        return round(float(np.median(self.sizes.min(axis=1))))

    def typical_size(self) -> tuple[int, int]:
        """Return the median height and the median width of the training images."""
        height, width = np.median(self.sizes, axis=0).tolist()
        return round(height), round(width)

    def resized_boxes(self, short_side: int, long_side: int) -> Float64[ndarray, "p 2"]:
        """Return (width, height) of each box after its image is resized to a short side, with a limit for the long."""
        scales = np.minimum(short_side / self.sizes.min(axis=1), long_side / self.sizes.max(axis=1))
        return self.boxes * scales[self.box_images, None]

    def describe(self) -> str:
        """Describe the data in one line."""
        height, width = self.typical_size()
        parts = [f"{self.train_images} training and {self.val_images} validation images of about {width} x {height}"]
        if self.images_by_class:
            counts = sorted(self.images_by_class.items(), key=lambda item: -item[1])
            shown = counts if len(counts) <= 4 else [*counts[:2], *counts[-2:]]
            listed = ", ".join(f"{name} {count}" for name, count in shown)
            few = "" if shown is counts else "most and least frequent: "
            parts.append(f"{self.objects} objects of {len(counts)} classes; images by class: {few}{listed}")
        return "; ".join(parts)


def read_facts(train_set: Dataset, val_set: Dataset) -> DataFacts:
    """Return the facts about the opened data sets of an experiment with a single task."""
    names = train_set.classes[train_set.task].names
    try:
        pairs = train_set.image_labels()
    except UsageError:  # class maps in files, which are not read
        pairs, names = np.zeros((0, 2), np.int64), ()
    boxes = np.zeros((0, 2))
    if train_set.task == "detection":
        corners = train_set.object_boxes().astype(np.float64)
        boxes = corners[:, 2:] - corners[:, :2]
    # The labels of class maps made from masks begin with the background, which image_labels leaves out.
    # Pairs are encoded as integers, since np.unique over rows takes many times longer.
    classes = max(len(names), 1)
    counts = np.bincount(np.unique(pairs[:, 0] * classes + pairs[:, 1]) % classes, minlength=len(names)).tolist()
    has_background = bool(names) and train_set.task == "semantic"
    by_class = dict(list(zip(names, counts, strict=True))[1 if has_background else 0 :]) if names else {}
    return DataFacts(
        train_images=len(train_set),
        val_images=len(val_set),
        sizes=train_set.sizes,
        images_by_class=by_class,
        objects=len(pairs),
        boxes=boxes,
        box_images=pairs[:, 0] if len(boxes) else np.zeros(0, np.int64),
    )


def find_oddities(train_set: Dataset, val_set: Dataset, facts: DataFacts) -> list[str]:
    """Return a line for each property of the data that makes their scores misleading."""
    warnings = []
    files = [{data.file_name(index) for index in range(len(data))} - {""} for data in (train_set, val_set)]
    if common := files[0] & files[1]:
        warnings.append(
            f"WARNING: {len(common)} images are both training and validation images, such as {min(common)}: "
            "the scores will be too high"
        )
    if unseen := [name for name, count in facts.images_by_class.items() if not count]:
        listed = join_first(unseen, separator=", ")
        warnings.append(f"WARNING: no training image has an object of {listed}: nothing is learned about it")
    return warnings
