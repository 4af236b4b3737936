"""Data sets given by a path, as ``vertebra train --data`` takes them: the format is found from what lies there.

``FORMATS`` is the table of formats. Those in ``vertebra.formats.LABEL_FORMATS`` have an entry each; another format is a
file here that defines a :class:`PathFormat`, and an entry.
"""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

from ...formats import LABEL_FORMATS
from ...structures import UsageError, suggest
from ..dataset import DatasetConfig
from ..hash_split import HashSplitConfig
from .base import DataPath, Part, PathFormat
from .coco import COCO
from .labels import path_format
from .masks import MASKS
from .voc import VOC

FORMATS: tuple[PathFormat, ...] = (COCO, VOC, MASKS, *map(path_format, LABEL_FORMATS.values()))
"""The formats that are recognized."""
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
    found = find_format(data)
    if val is not None:
        val_data = replace(data, path=val)
        val_format = find_format(val_data)
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
    """Return the names of the image lists or the split that a config takes, as the end of a phrase; empty for none."""
    splits, split = getattr(config, "splits", ()), getattr(config, "split", None)
    if split is not None:
        return f" with the split {split}"
    return f" with the list {' and '.join(splits)}" if splits else ""


def find_format(data: DataPath) -> PathFormat:
    """Return the format of the data at a path, or the one that the user gave.

    Raises UsageError, saying what is there, if the path fits no format, or several.
    """
    if data.format is not None:
        keys = {candidate.key: candidate for candidate in FORMATS}
        if data.format not in keys:
            raise UsageError(f"there is no data format {data.format!r}", suggest(data.format, keys))
        return keys[data.format]
    found = [candidate for candidate in FORMATS if candidate.recognize(data.path)]
    if len(found) == 1:
        return found[0]
    if found:
        candidates = " and ".join(f"{candidate.name} ({candidate.key})" for candidate in found)
        what = f"this could be {candidates}"
        raise UsageError(what, f"give --data-format {found[0].key} (data_format= in Python)", file=data.path)
    expected = " or ".join(candidate.expected for candidate in FORMATS)
    raise UsageError(f"{_describe_path(data.path)}, but data are {expected}", "check the path", file=data.path)


def _describe_path(path: Path) -> str:
    """Describe what is at a path: nothing, a file, or a folder with its first entries."""
    if path.is_dir():
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in path.iterdir())
        if not names:
            return "this folder is empty"
        more = ", ..." if len(names) > LISTED else ""
        return f"this folder holds {', '.join(itertools.islice(names, LISTED))}{more}"
    return "this is a file of another type" if path.exists() else "there is no such file or folder"
