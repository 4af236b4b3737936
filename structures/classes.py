"""The classes of a data set or a model."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a data set: the name of each label, and its category id in the annotation files."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
