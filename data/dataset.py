"""What a data set is, and how one is made from a config."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray
from pydantic import field_validator

from ..structures import Classes, MaskFormat, PartConfig, Registry, UsageError
from .report import DataReport, Policy, require_policy
from .resize_annotations import resize_annotations
from .types import Record


class DatasetConfig(PartConfig):
    """Where a data set is and what of it is used."""

    @field_validator("class_names", check_fields=False)
    @classmethod
    def _require_distinct_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Refuse a class name that comes twice, which would be two labels, in any config that lets users choose."""
        if names is not None and len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"these classes are named twice: {', '.join(twice)}")
        return names

    def classes(self) -> Any:
        """Return the class names as far as they are known without looking at the data; label ``i`` is ``classes()[i]``.

        A config for several tasks returns a dict by task. UsageError where the names are in the files.
        """
        raise UsageError(f"the classes of {self.name} are in its files", "name them in the config")

    def decoded_short_side(self) -> int | None:
        """Return the fewest pixels to which the short side of a larger image is reduced in decoding; None where images
        are decoded in full."""
        return None


class Dataset(ABC):
    """Images and their annotations, validated when the data set is opened."""

    task: str
    """What its annotations teach; only a head of the same task can learn from it."""
    masks: bool = False
    """Whether its objects have masks."""
    mask_format: MaskFormat = "bitmaps"
    """The form in which a head gets the masks."""
    metrics: tuple[str, ...] = ("coco",)
    """What detections are scored with, the main one first: ``coco``, ``voc07``, ``voc12``."""
    class_names: tuple[str, ...]
    """Label ``i`` is ``class_names[i]``. A joint data set has none of its own; ``classes`` has those of all tasks."""
    category_ids: tuple[int, ...]
    """The id that the files have for each label; results are written with these."""
    image_ids: Sequence[int | str]
    report: DataReport

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def classes(self) -> Mapping[str, Classes]:
        """What the labels mean, by task."""
        return {self.task: Classes(self.class_names, self.category_ids)}

    def part(self, task: str) -> "Dataset":
        """Return the same images with the annotations of one task: that part of a joint data set, otherwise this data
        set. UsageError where it has none for the task."""
        if task not in self.classes:
            what = f"the data set has no annotations for {task}, only for {' and '.join(self.classes)}"
            raise UsageError(what, f"give it as parts.{task} of a joint data set")
        return self

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image, upright. UsageError where they are not known without reading the files."""
        raise self._not_known("the sizes of its images", "set sampling.group_by_shape to false")

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Return the (image index, label) pairs of all objects, or of all images where the image has the label; the
        background of semantic maps is left out. UsageError where they are not known without reading the files."""
        raise self._not_known("what classes an image has", "set sampling.images to each_once")

    def _not_known(self, what: str, fix: str) -> UsageError:
        return UsageError(f"a data set of this kind ({type(self).__name__}) does not know {what}", fix)

    def file_name(self, index: int) -> str:
        """Return the path of an image's file; empty where images are not read from files."""
        return ""

    def read(self, index: int) -> Record:
        """Return the image, decoded, with its annotations in the same pixels. DataError where it cannot be decoded."""
        record = self.add_annotations(self.read_image(index), index)
        if record.original_size is None:
            return record
        return resize_annotations(record, record.original_size, (record.image.shape[0], record.image.shape[1]))

    @abstractmethod
    def read_image(self, index: int) -> Record:
        """Return the image, decoded, without its annotations. DataError where it cannot be decoded."""

    @abstractmethod
    def add_annotations(self, record: Record, index: int) -> Record:
        """Return the record of :meth:`read_image` with its annotations, in original pixels."""

    def annotation_digest(self) -> str:
        """Return a checksum that changes with the annotations; empty where image ids and config determine them."""
        return ""

    @abstractmethod
    def ground_truth(self) -> Any:
        """Return the annotations of exactly these images, in original ids and pixels, for the task's evaluator.

        For detection a dict in COCO's format; for classification the label of each image id; for semantic data a
        mapping from each image id to its map, which is read when it is asked for.
        """


class LazyClassMaps(Mapping[str | int, UInt8[ndarray, "h w"]]):
    """The map of classes of each image id, read when it is asked for: all of them would fill the memory."""

    def __init__(self, image_ids: Sequence[str | int], read: Callable[[int], UInt8[ndarray, "h w"]]) -> None:
        self._indices = {image_id: index for index, image_id in enumerate(image_ids)}
        self._read = read

    def __getitem__(self, image_id: str | int) -> UInt8[ndarray, "h w"]:
        return self._read(self._indices[image_id])

    def __iter__(self) -> Iterator[str | int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def select_image_labels(
    pairs: Int64[ndarray, "p 2"], chosen: Int64[ndarray, " k"], length: int
) -> Int64[ndarray, "q 2"]:
    """Return the (image index, label) pairs of the ``chosen`` images out of ``length``, renumbered from 0."""
    indices = np.full(length, -1)
    indices[chosen] = np.arange(len(chosen))
    renumbered = np.stack([indices[pairs[:, 0]], pairs[:, 1]], axis=1)
    return renumbered[renumbered[:, 0] >= 0]


DATASETS: Registry[Dataset] = Registry("data set")
"""Data sets by name; an entry builds from ``(policy, config)``."""


def build_dataset(config: PartConfig, bad_data: Policy = "error") -> Dataset:
    """Open the data set that a config describes; ``bad_data`` says whether to stop at what is unusable or to skip it.

    ValueError for any other policy.
    """
    require_policy(bad_data)
    return DATASETS.build(config, bad_data)


def require_same_classes(
    first: Mapping[str, Classes], second: Mapping[str, Classes], names: tuple[str, str] = ("train", "val")
) -> None:
    """Refuse classes, by task, whose labels mean different things; ``names`` says whose they are."""
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
