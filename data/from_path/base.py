"""How a data set on disk is recognized and configured from its path alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..dataset import DatasetConfig

Part = Literal["all", "train", "val"]
"""The images to take from a path: all of them, or those that the data on disk lists for training or validation."""


@dataclass(frozen=True, slots=True)
class DataPath:
    """A path to a data set, and what it is to be used for."""

    path: Path
    task: str
    """The task of the head that learns from it: ``detection`` or ``semantic``."""
    images: Path | None = None
    """The folder of the images, if the format needs one and the user gave it."""
    format: str | None = None
    """The key of the format, if the user gave it."""


@dataclass(frozen=True, slots=True)
class PathFormat:
    """A format of data sets that is recognized from a path."""

    key: str
    """The short name of the format, for ``--data-format``."""
    name: str
    """The name of the format for messages, with its article: ``a COCO file``."""
    expected: str
    """How a data set in this format looks on disk, for the error about a path that fits no format."""
    recognize: Callable[[Path], bool]
    """Return whether a path is in this format, from its name and the names of the files beside or below it."""
    has_parts: Callable[[DataPath], bool]
    """Return whether the data on disk say which images are for training and which for validation."""
    configure: Callable[[DataPath, Part], DatasetConfig]
    """Return the config of the data set; raises UsageError or DataError if something is missing."""
