"""The classes of a data set or a model."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a data set: the name of each label, and its category id in the annotation files."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    num_things: int | None = None
    """The number of thing classes, which come first, if the classes are those of a panoptic segmentation."""
