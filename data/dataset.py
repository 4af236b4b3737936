"""The interface of data sets, their registry, and checks of their classes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray
from pydantic import field_validator

from ..formats import ImagePair
from ..structures import Classes, MaskFormat, PartConfig, Registry, Skeleton, UsageError
from .report import DataReport, Policy, require_policy
from .resize_annotations import resize_annotations
from .types import Record

Map = TypeVar("Map")


class DatasetConfig(PartConfig):
    """Base class of the configs of data sets."""

    @field_validator("class_names", check_fields=False)
    @classmethod
    def _require_distinct_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Refuse repeated names in the field ``class_names``, if the config has it: each would get two labels."""
        if names is not None and len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"these classes are named twice: {', '.join(twice)}")
        return names

    def classes(self) -> Any:
        """Return the class names without reading the data; label ``i`` is ``classes()[i]``.

        A config for several tasks returns a dict by task. Raises UsageError if the names are known only from the files.
        """
        raise UsageError(f"the classes of {self.name} are in its files", "name them in the config")

    def decoded_short_side(self) -> int | None:
        """Return the minimum length in pixels of the short side when images are decoded at a reduced size; None if
        images are decoded in full."""
        return None


class Dataset(ABC):
    """Base class of data sets: images with annotations, validated when the data set is opened."""

    task: str
    """The task of the annotations, such as ``detection``; it must be the task of the head."""
    masks: bool = False
    """Whether the objects have masks."""
    mask_format: MaskFormat = "bitmaps"
    """The form in which heads receive the masks."""
    skeleton: Skeleton | None = None
    """The keypoints of the objects; None if the data set has none."""
    metrics: tuple[str, ...] = ("coco",)
    """The metrics for detections, the main one first: ``coco``, ``voc07``, ``voc12``."""
    class_names: tuple[str, ...]
    """The name of each label. A data set for several tasks lacks this attribute; its ``classes`` has them by task."""
    category_ids: tuple[int, ...]
    """The category id of each label in the annotation files; results are written with these ids."""
    image_ids: Sequence[int | str]
    pairs: Sequence[ImagePair] = ()
    """Pairs of images of the same or of different classes, for the verification scores of embeddings."""
    report: DataReport

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def classes(self) -> Mapping[str, Classes]:
        """The classes of the labels, by task."""
        return {self.task: Classes(self.class_names, self.category_ids, skeleton=self.skeleton)}

    def part(self, task: str) -> "Dataset":
        """Return the data set for one task: a part of a joint data set, with the same images, or this data set itself.

        Raises UsageError if there are no annotations for the task.
        """
        if task not in self.classes:
            what = f"the data set has no annotations for {task}, only for {' and '.join(self.classes)}"
            raise UsageError(what, f"give it as parts.{task} of a joint data set")
        return self

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every upright image. Raises UsageError if they are unknown without reading the files."""
        raise self._unknown_error("the sizes of its images", "set sampling.group_by_shape to false")

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Return the (image index, label) pairs of all objects or, for classification, of all images.

        The background of semantic maps is left out. Raises UsageError if the labels are unknown without reading the
        files.
        """
        raise self._unknown_error("the classes of its images", "set sampling.images to each_once")

    def object_boxes(self) -> Float32[ndarray, "p 4"]:
        """Return the boxes, xyxy in original pixels, of the objects of :meth:`image_labels`, in the same order.

        Raises UsageError if the objects have no boxes, or if these are unknown without reading the files.
        """
        raise self._unknown_error("the boxes of its objects", "use a detection data set in COCO's format or VOC's")

    def _unknown_error(self, what: str, fix: str) -> UsageError:
        return UsageError(f"a data set of this type ({type(self).__name__}) does not know {what}", fix)

    def file_name(self, index: int) -> str:
        """Return the path of an image's file; empty if images are not read from files."""
        return ""

    def read(self, index: int) -> Record:
        """Decode an image and return it with its annotations, both at the decoded size.

        Raises DataError if the image cannot be decoded.
        """
        record = self.add_annotations(self.read_image(index), index)
        if record.original_size is None:
            return record
        return resize_annotations(record, record.original_size, (record.image.shape[0], record.image.shape[1]))

    @abstractmethod
    def read_image(self, index: int) -> Record:
        """Decode an image and return it without annotations; raise DataError if it cannot be decoded."""

    @abstractmethod
    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the annotations, in original pixels, to a record that :meth:`read_image` returned."""

    def annotation_digest(self) -> str:
        """Return a checksum of the annotations; empty if they are determined by the image ids and the config."""
        return ""

    @abstractmethod
    def ground_truth(self) -> Any:
        """Return the annotations of all images of the data set for evaluation, in original pixels and category ids.

        For detection, this is a dict in COCO's format; for classification, a mapping from image id to label; for
        semantic segmentation, a mapping from image id to class map, which is read lazily, and for panoptic segmentation
        a mapping from image id to ``PanopticSegmentation``.
        """


class LazyMaps(Mapping[str | int, Map]):
    """A mapping from image id to a class map or segmentation, read on access, since all would not fit in memory."""

    def __init__(self, image_ids: Sequence[str | int], read: Callable[[int], Map]) -> None:
        self._indices = {image_id: index for index, image_id in enumerate(image_ids)}
        self._read = read

    def __getitem__(self, image_id: str | int) -> Map:
        return self._read(self._indices[image_id])

    def __iter__(self) -> Iterator[str | int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def select_image_labels(
    pairs: Int64[ndarray, "p 2"], chosen: Int64[ndarray, " k"], length: int
) -> Int64[ndarray, "q 2"]:
    """Return the (image index, label) pairs of the ``chosen`` images, with image indices into ``chosen``.

    ``length`` is the number of images that ``pairs`` refers to.
    """
    indices = np.full(length, -1)
    indices[chosen] = np.arange(len(chosen))
    kept = pairs[is_on_images(pairs[:, 0], chosen, length)]
    return np.stack([indices[kept[:, 0]], kept[:, 1]], axis=1)


def is_on_images(images: Int64[ndarray, " p"], chosen: Int64[ndarray, " k"], length: int) -> Bool[ndarray, " p"]:
    """Return for each object, whose image index is in ``images``, whether its image is one of the ``chosen`` ones.

    ``length`` is the number of images.
    """
    is_chosen = np.zeros(length, bool)
    is_chosen[chosen] = True
    return is_chosen[images]


DATASETS: Registry[Dataset] = Registry("data set")
"""Data sets by name; builders take ``(policy, config)``."""


def build_dataset(config: PartConfig, bad_data: Policy = "error") -> Dataset:
    """Open the data set that a config describes.

    If an image or annotation cannot be used, ``bad_data="error"`` raises DataError and ``"skip"`` leaves it out.
    Raises ValueError for any other value.
    """
    require_policy(bad_data)
    return DATASETS.build(config, bad_data)


def require_same_classes(
    first: Mapping[str, Classes], second: Mapping[str, Classes], names: tuple[str, str] = ("train", "val")
) -> None:
    """Raise UsageError if two data sets have different classes for a task, by name or order.

    ``names`` are the names of the data sets in the message.
    """
    for task in first.keys() & second.keys():
        _require_same_names(first[task].names, second[task].names, names)


def _require_same_names(first: Sequence[str], second: Sequence[str], names: tuple[str, str]) -> None:
    if first == second:
        return
    differences = [
        f"only in {names[0]}: {sorted(set(first) - set(second))}",
        f"only in {names[1]}: {sorted(set(second) - set(first))}",
    ]
    if set(first) == set(second):
        differences = [f"the same classes in another order: {first} and {second}"]
    raise UsageError(
        f"{names[0]} and {names[1]} have different classes; {'; '.join(differences)}",
        "give both the same dataset.class_names",
    )
