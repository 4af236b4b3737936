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
    """The number of thing classes, which come first, if the classes are those of a panoptic segmentation."""
    skeleton: Skeleton | None = None
    """The keypoints of the objects; None if the data set has none."""

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Classes":
        """Return the classes whose fields were written as JSON; older files lack some."""
        skeleton = values.get("skeleton")
        names, ids = tuple(values["names"]), tuple(values["ids"])
        return cls(names, ids, values.get("num_things"), None if skeleton is None else Skeleton.of_json(skeleton))
