"""The classes of a data set or a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .keypoints import Skeleton


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a data set: the name of each label, and its category id in the annotation files."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    num_things: int | None = None
    """The number of thing classes, which come before the stuff classes; None except for panoptic segmentation."""
    skeleton: Skeleton | None = None
    """The keypoints of the objects; None if the data set has none."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Classes":
        """Build the classes from fields read from JSON; those that older files lack get their defaults."""
        skeleton = values.get("skeleton")
        names, ids = tuple(values["names"]), tuple(values["ids"])
        return cls(names, ids, values.get("num_things"), None if skeleton is None else Skeleton.from_json(skeleton))
