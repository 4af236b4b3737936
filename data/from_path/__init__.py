"""Data sets given by a path, as ``vertebra train --data`` takes them: the format is found from what lies there.

``FORMATS`` is the table of formats. A new format is a file here that defines a :class:`PathFormat`, and an entry.
"""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

from ...structures import UsageError
from ..dataset import DatasetConfig
from ..hash_split import HashSplitConfig
from .base import DataPath, Part, PathFormat
from .coco import COCO
from .voc import VOC

FORMATS: tuple[PathFormat, ...] = (COCO, VOC)
"""The formats that are recognized, in the order in which they are tried."""
LISTED = 6
"""The number of entries of a folder that an error message lists."""

__all__ = ["FORMATS", "DataPath", "DatasetPair", "Part", "PathFormat", "find_format", "pair_from_paths"]


@dataclass(frozen=True, slots=True)
class DatasetPair:
    """The configs of the training and the validation data, and how they were found."""

    train: DatasetConfig
    val: DatasetConfig
    description: str
    """One line that says in which format the data are, and where the validation images come from."""


def pair_from_paths(data: DataPath, val: Path | None = None) -> DatasetPair:
    """Return the configs of the training data at a path, and of the validation data.

    The validation data are those at the path ``val``; without it those that the training data list as such or, if
    they list none, a fifth of the images, chosen by a hash of the file name. Raises UsageError for a path that fits no
    format.
    """
    found = find_format(data.path)
    if val is not None:
        val_data = replace(data, path=val)
        val_format = find_format(val)
        train = found.configure(data, "train" if found.has_parts(data) else "all")
        val_config = val_format.configure(val_data, "val" if val_format.has_parts(val_data) else "all")
        described = (f"{data.path} is {found.name}{_lists(train)}", f"{val} is {val_format.name}{_lists(val_config)}")
        return DatasetPair(train, val_config, ", ".join(described))
    if found.has_parts(data):
        train, val_config = found.configure(data, "train"), found.configure(data, "val")
        lists = f"{_lists(train)} for training and{_lists(val_config)} for validation"
        return DatasetPair(train, val_config, f"{data.path} is {found.name}{lists}")
    whole = found.configure(data, "all")
    train, val_config = HashSplitConfig(dataset=whole, part="train"), HashSplitConfig(dataset=whole, part="val")
    return DatasetPair(
        train,
        val_config,
        f"{data.path} is {found.name}; no validation data are given, so about {train.val_fraction:.0%} of the images, "
        "chosen by a hash of their file names, are kept for validation",
    )


def _lists(config: DatasetConfig) -> str:
    """Return the names of the image lists that a config takes, as the end of a phrase; empty if it takes none."""
    splits = getattr(config, "splits", ())
    return f" with the list {' and '.join(splits)}" if splits else ""


def find_format(path: Path) -> PathFormat:
    """Return the format of the data at a path; raise UsageError, saying what is there, if it fits none."""
    for candidate in FORMATS:
        if candidate.recognize(path):
            return candidate
    expected = " or ".join(candidate.expected for candidate in FORMATS)
    raise UsageError(f"{_describe_path(path)}, but data are {expected}", "check the path", file=path)


def _describe_path(path: Path) -> str:
    """Describe what is at a path: nothing, a file, or a folder with its first entries."""
    if path.is_dir():
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in path.iterdir())
        if not names:
            return "this folder is empty"
        more = ", ..." if len(names) > LISTED else ""
        return f"this folder holds {', '.join(itertools.islice(names, LISTED))}{more}"
    return "this is a file of another type" if path.exists() else "there is no such file or folder"
