"""Joint data sets: annotations for several tasks on the same images, for models with several heads."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from jaxtyping import Int64
from numpy import ndarray
from pydantic import Field

from ..structures import Classes, DataError, UsageError
from .dataset import DATASETS, Dataset, DatasetConfig
from .report import DataReport, Policy
from .subset import SubsetDataset
from .types import Record

TargetTask = Literal["detection", "semantic", "classification"]


class JointConfig(DatasetConfig):
    """One data set per task, on the same images."""

    name: Literal["joint"] = "joint"
    parts: dict[TargetTask, Annotated[DatasetConfig, *DATASETS.field()]] = Field(min_length=2)
    """The data set of each task: ``{"detection": ..., "semantic": ...}``. The first one reads the images."""

    def classes(self) -> dict[str, Any]:
        """Return the class names of every part, by task."""
        return {task: part.classes() for task, part in self.parts.items()}

    def decoded_short_side(self) -> int | None:
        """Return the ``decoded_short_side`` of the first part, which reads the images."""
        return next(iter(self.parts.values())).decoded_short_side()


@DATASETS.register("joint", JointConfig)
class JointDataset(Dataset):
    """A data set of the images that all parts have in common, with the annotations of all parts.

    Images are matched by id, in the order of the first part, which also reads the pixels. Other images are left out and
    counted in the report.
    """

    task: ClassVar[str] = "multi_head"

    def __init__(self, policy: Policy, config: JointConfig) -> None:
        self.config = config
        parts: dict[str, Dataset] = {}
        for task, part in config.parts.items():
            parts[task] = DATASETS.build(part, policy)
            if parts[task].task != task:
                raise UsageError(f"parts.{task}: {part.name!r} is a data set for {parts[task].task}")
        self.report = DataReport(policy, "all parts", kinds=("images",))
        self.report.parts = {task: part.report for task, part in parts.items()}
        self.image_ids = _common_ids(parts.values(), self.report)
        self._parts = {task: SubsetDataset(part, self.image_ids) for task, part in parts.items()}
        self._first = next(iter(self._parts.values()))

    @property
    def classes(self) -> Mapping[str, Classes]:
        """The classes of every part, by task."""
        return {task: part.classes[task] for task, part in self._parts.items()}

    def part(self, task: str) -> Dataset:
        """Return the data set of one task, restricted to the joint images; raise UsageError if there is none."""
        super().part(task)
        return self._parts[task]

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def sizes(self) -> Int64[ndarray, "n 2"]:
        """(height, width) of every image, from the first part."""
        return self._first.sizes

    def image_labels(self) -> Int64[ndarray, "p 2"]:
        """Raise UsageError, since each part has its own classes."""
        raise self._unknown_error("which part's classes to count", f"set sampling.task to {' or '.join(self._parts)}")

    def file_name(self, index: int) -> str:
        return self._first.file_name(index)

    def read_image(self, index: int) -> Record:
        return self._first.read_image(index)

    def add_annotations(self, record: Record, index: int) -> Record:
        """Add the annotations of every part to a record."""
        for part in self._parts.values():
            record = part.add_annotations(record, index)
        return record

    def annotation_digest(self) -> str:
        """Return the annotation digests of all parts in one string."""
        return " ".join(f"{task}:{part.annotation_digest()}" for task, part in self._parts.items())

    def ground_truth(self) -> dict[str, Any]:
        """Return the ground truth of every part, by task."""
        return {task: part.ground_truth() for task, part in self._parts.items()}


def _common_ids(parts: Collection[Dataset], report: DataReport) -> list[int | str]:
    """Return the image ids that all parts have in common, in the order of the first part; report the others as skipped.

    Raises DataError if there are none.
    """
    all_ids = dict.fromkeys(image_id for part in parts for image_id in part.image_ids)
    common = set(all_ids).intersection(*(part.image_ids for part in parts))
    report.read["images"] = len(all_ids)
    for image_id in all_ids:
        if image_id not in common:
            report.skip("images", "not-in-every-part", image_id)
    if not common:
        examples = ", ".join(repr(part.image_ids[0]) for part in parts)
        raise DataError(
            f"the parts have no image in common; their first ids are {examples}", "give them the same images",
            case="empty-dataset",
        )  # fmt: skip
    return [image_id for image_id in all_ids if image_id in common]
