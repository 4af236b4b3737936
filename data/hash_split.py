"""A data set divided into training and validation images by a hash of their file names."""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field

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
    chosen = is_validation(_distinct_names(whole), config.val_fraction)
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


def is_validation(names: list[str], fraction: float) -> Bool[ndarray, " n"]:
    """Return for each of at least two images with distinct names whether it is a validation image.

    An image is one if the hash of its name, as a number from 0 to 1, is below ``fraction``. If that leaves a part
    empty, the image with the lowest hash is a validation image, and that with the highest hash a training image.
    """
    hashes = np.array([_hash_to_unit_interval(name) for name in names])
    chosen = hashes < fraction
    chosen[hashes.argmin()] = True
    chosen[hashes.argmax()] = False
    return chosen


def _hash_to_unit_interval(text: str) -> float:
    """Return a number from 0 to 1 that depends on ``text`` only, uniformly distributed over texts."""
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
