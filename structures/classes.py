"""The classes of a data set or a model."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Classes:
    """The name of each label, and the id that it has in the files that the data came from."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
