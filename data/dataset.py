"""What a data set is, and how one is made from a config."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from ..structures import PartConfig, Registry, UsageError
from .report import DataReport, Policy
from .types import Record


class DatasetConfig(PartConfig):
    """Where a data set is and what of it is used."""

    def classes(self) -> tuple[str, ...]:
        """The class names, as far as they are known without looking at the data; label ``i`` is ``classes()[i]``."""
        raise UsageError(f"the classes of {self.name} are in its files", "name them in the config")


class Dataset(ABC):
    """Images and what is known of them, validated when it is made. Label ``i`` is ``class_names[i]``."""

    task: ClassVar[str]
    """What its truth teaches; only a head of the same task can learn from it."""
    masks: bool = False
    """Whether its objects have masks."""
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    """The id that the files have for each label; results are written with these."""
    image_ids: Sequence[int | str]
    report: DataReport

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Record:
        """The image, decoded, with its truth in original pixels. DataError where it cannot be decoded."""

    @abstractmethod
    def ground_truth(self) -> Any:
        """The truth of exactly these images, in original ids and pixels, as the evaluator of the task wants it.

        For detection a COCO-format dict; for classification the label of each image id; for semantic data a mapping
        from each image id to its map, which is read when it is asked for.
        """


datasets: Registry[Dataset] = Registry("data set")
"""Data sets by name; an entry builds from ``(policy, config)``."""


def build_dataset(config: PartConfig, bad_data: Policy = "error") -> Dataset:
    """The data set that a config describes; ``bad_data`` says whether to stop at what is unusable or to skip it."""
    return datasets.build(config, bad_data)


def require_same_classes(train: Dataset, val: Dataset) -> None:
    """Refuse two data sets whose labels mean different things."""
    if train.class_names == val.class_names:
        return
    differences = [
        f"only in train: {sorted(set(train.class_names) - set(val.class_names))}",
        f"only in val: {sorted(set(val.class_names) - set(train.class_names))}",
    ]
    if set(train.class_names) == set(val.class_names):
        differences = [f"the same classes in another order: {train.class_names} and {val.class_names}"]
    raise UsageError(
        f"train and val have different classes; {'; '.join(differences)}", "give both the same dataset.class_names"
    )
