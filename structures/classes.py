"""What the labels of a data set or a model mean."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Classes:
    """Label ``i`` is ``names[i]`` to people, and ``ids[i]`` in the files that the data came from."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
