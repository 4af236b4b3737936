"""A data set divided into training and validation images by a hash of their file names."""

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field, field_validator

from ..structures import DataError
from .dataset import DATASETS, Dataset, DatasetConfig
from .report import DataReport, Policy
from .subset import SubsetDataset


class HashSplitConfig(DatasetConfig):
    """One part of another data set: its training or its validation images.

    The part of an image follows from its file name alone, or from its path below the common folder if two images have
    the same file name. So images that are added later do not change the parts of the others.
    """

    name: Literal["hash_split"] = "hash_split"
    dataset: Annotated[DatasetConfig, *DATASETS.field()]
    """The data set to divide."""
    part: Literal["train", "val"]
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """The expected fraction of validation images. Each part has at least one image."""
    group: str | None = None
    """A regular expression. Images are kept together if their names match it with the same first group, or the same
    match if it has no group: ``^(.+)_frame`` keeps the frames of a video together. None: each image is on its own."""

    @field_validator("group")
    @classmethod
    def _require_expression(cls, group: str | None) -> str | None:
        try:
            re.compile(group or "")
        except re.error as error:
            raise ValueError(f"group is not a regular expression: {error}") from None
        return group

    def classes(self) -> Any:
        """Return the class names of the divided data set."""
        return self.dataset.classes()

    def decoded_short_side(self) -> int | None:
        """Return the ``decoded_short_side`` of the divided data set."""
        return self.dataset.decoded_short_side()


@DATASETS.register("hash_split", HashSplitConfig)
def build_hash_split(policy: Policy, config: HashSplitConfig) -> Dataset:
    """Open the divided data set and return the chosen part; raise DataError if it has fewer than two images."""
    whole = DATASETS.build(config.dataset, policy)
    if len(whole) < 2:
        raise DataError(
            "the data set has only one image, which cannot be divided into training and validation images",
            "add images, or give validation data of its own",
            case="empty-dataset", file=whole.report.source,
        )  # fmt: skip
    chosen = is_validation(_group_names(_distinct_names(whole), config.group), config.val_fraction)
    chosen = chosen if config.part == "val" else ~chosen
    subset = SubsetDataset(whole, [whole.image_ids[index] for index in np.flatnonzero(chosen).tolist()])
    subset.report = report = DataReport(policy, whole.report.source, kinds=("images",))
    report.read["images"] = len(whole)
    for index in np.flatnonzero(~chosen).tolist():
        report.skip("images", "other-part", whole.image_ids[index])
    report.parts = {"both parts": whole.report}
    return subset


def _distinct_names(dataset: Dataset) -> list[str]:
    """Return a name for each image: its file name, its path below the common folder, or its id without a file."""
    files = [dataset.file_name(index) for index in range(len(dataset))]
    if not all(files):
        return [str(image_id) for image_id in dataset.image_ids]
    names = [Path(file).name for file in files]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath(files)
    return [Path(file).relative_to(common).as_posix() for file in files]


def _group_names(names: list[str], group: str | None) -> list[str]:
    """Return for each image the name by which its part is chosen: that of its group, or its own."""
    if group is None:
        return names
    matches = [re.search(group, name) for name in names]
    found = [match.group(1 if match.re.groups else 0) if match else None for match in matches]
    grouped = [name if part is None else part for name, part in zip(names, found, strict=True)]
    if len(set(grouped)) < 2:
        raise DataError(
            f"all images are in one group of {group!r}", "correct dataset.group, or give validation data",
            case="one-group",
        )  # fmt: skip
    return grouped


def is_validation(names: list[str], fraction: float) -> Bool[ndarray, " n"]:
    """Return for each of at least two images whether it is a validation image; images of one name are together.

    An image is one if the hash of its name, as a number from 0 to 1, is below ``fraction``. If that leaves a part
    empty, the image with the lowest hash is a validation image, and that with the highest hash a training image.
    """
    hashes = np.array([_hash_to_unit_interval(name) for name in names])
    chosen = hashes < fraction
    chosen[hashes == hashes.min()] = True
    chosen[hashes == hashes.max()] = False
    return chosen


def _hash_to_unit_interval(text: str) -> float:
    """Return a number from 0 to 1 that depends on ``text`` only, uniformly distributed over texts."""
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
