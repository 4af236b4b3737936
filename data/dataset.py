"""What a data set is, and how one is made from a config."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import field_validator

from ..structures import Classes, MaskFormat, PartConfig, Registry, UsageError
from .report import DataReport, Policy
from .resize_annotations import resize_annotations
from .types import Record


class DatasetConfig(PartConfig):
    """Where a data set is and what of it is used."""

    @field_validator("class_names", check_fields=False)
    @classmethod
    def _are_distinct(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """For every kind that lets a user choose its classes: a name that comes twice would be two labels."""
        if names is not None and len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"these classes are named twice: {', '.join(twice)}")
        return names

    def classes(self) -> Any:
        """The class names, as far as they are known without looking at the data; label ``i`` is ``classes()[i]``.
        Those of several kinds of truth come by task."""
        raise UsageError(f"the classes of {self.name} are in its files", "name them in the config")

    def decoded_short_side(self) -> int | None:
        """The fewest pixels to which it reduces the short side of a larger image; None where it reduces none."""
        return None


class Dataset(ABC):
    """Images and what is known of them, validated when it is made."""

    task: str
    """What its truth teaches; only a head of the same task can learn from it."""
    masks: bool = False
    """Whether its objects have masks."""
    mask_format: MaskFormat = "bitmaps"
    """And what they come as."""
    metrics: tuple[str, ...] = ("coco",)
    """What detections are scored with, the one to go by first: ``coco``, ``voc07``, ``voc12``."""
    class_names: tuple[str, ...]
    """Label ``i`` is ``class_names[i]``. A joint data set has none of its own; ``classes`` serves for all."""
    category_ids: tuple[int, ...]
    """The id that the files have for each label; results are written with these."""
    image_ids: Sequence[int | str]
    report: DataReport

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def classes(self) -> Mapping[str, Classes]:
        """What its labels mean, by task."""
        return {self.task: Classes(self.class_names, self.category_ids)}

    def part(self, task: str) -> "Dataset":
        """The same images with the truth of one task: of a joint data set that part, otherwise the data set itself.
        UsageError where there is none for it."""
        if task not in self.classes:
            what = f"the data set has no truth for {task}, only for {' and '.join(self.classes)}"
            raise UsageError(what, f"give it as parts.{task} of a joint data set")
        return self

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image, upright. UsageError where they are not known without reading the files."""
        raise self._not_known("the sizes of its images", "set sampling.group_by_shape to false")

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Of every object, or every image as a whole, the image's index and the label as it is learned; without the
        background of semantic maps. UsageError where they are not known without reading the files."""
        raise self._not_known("what classes an image has", "set sampling.images to each_once")

    def _not_known(self, what: str, fix: str) -> UsageError:
        return UsageError(f"a data set of this kind ({type(self).__name__}) does not know {what}", fix)

    def read(self, index: int) -> Record:
        """The image, decoded, with its truth in the same pixels. DataError where it cannot be decoded."""
        record = self.add_annotations(self.read_image(index), index)
        if record.original_size is None:
            return record
        return resize_annotations(record, record.original_size, (record.image.shape[0], record.image.shape[1]))

    @abstractmethod
    def read_image(self, index: int) -> Record:
        """The image alone, decoded. DataError where it cannot be."""

    @abstractmethod
    def add_annotations(self, record: Record, index: int) -> Record:
        """What :meth:`read_image` gave, with its truth in original pixels."""

    def annotation_digest(self) -> str:
        """A sum of the annotations, cheaply had: others have another. Empty where image ids and config say all."""
        return ""

    @abstractmethod
    def ground_truth(self) -> Any:
        """The truth of exactly these images, in original ids and pixels, as the evaluator of the task wants it.

        For detection a COCO-format dict; for classification the label of each image id; for semantic data a mapping
        from each image id to its map, which is read when it is asked for.
        """


def select_image_labels(
    pairs: Int64[ndarray, "p 2"], chosen: Int64[ndarray, " k"], length: int
) -> Int64[ndarray, "q 2"]:
    """Of what :meth:`Dataset.image_labels` gives for so many images that of the chosen ones, by their new indices."""
    indices = np.full(length, -1)
    indices[chosen] = np.arange(len(chosen))
    renumbered = np.stack([indices[pairs[:, 0]], pairs[:, 1]], axis=1)
    return renumbered[renumbered[:, 0] >= 0]


DATASETS: Registry[Dataset] = Registry("data set")
"""Data sets by name; an entry builds from ``(policy, config)``."""


def build_dataset(config: PartConfig, bad_data: Policy = "error") -> Dataset:
    """The data set that a config describes; ``bad_data`` says whether to stop at what is unusable or to skip it."""
    return DATASETS.build(config, bad_data)


def require_same_classes(
    first: Mapping[str, Classes], second: Mapping[str, Classes], who: tuple[str, str] = ("train", "val")
) -> None:
    """Refuse classes, by task, whose labels mean different things; ``who`` has them."""
    for task in first.keys() & second.keys():
        _require_same_names(first[task].names, second[task].names, who)


def _require_same_names(first: Sequence[str], second: Sequence[str], who: tuple[str, str]) -> None:
    if first == second:
        return
    differences = [
        f"only in {who[0]}: {sorted(set(first) - set(second))}",
        f"only in {who[1]}: {sorted(set(second) - set(first))}",
    ]
    if set(first) == set(second):
        differences = [f"the same classes in another order: {first} and {second}"]
    raise UsageError(
        f"{who[0]} and {who[1]} have different classes; {'; '.join(differences)}",
        "give both the same dataset.class_names",
    )
