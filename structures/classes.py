"""The classes of a data set or a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .keypoints import Skeleton

THINGS = "things"
"""The name of the single semantic class that stands for all things of a panoptic data set."""


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


def panoptic_classes(things: Classes, stuff: Classes, semantic_things: Literal["one", "each"]) -> dict[str, Classes]:
    """Return the classes of a panoptic data set for each task.

    The single semantic class for all things is not a category of the file; its category id is 0, or an unused id if 0
    is taken.
    """
    unused = 0 if 0 not in stuff.ids else max(stuff.ids) + 1
    semantic = things if semantic_things == "each" else Classes((THINGS,), (unused,))
    return {
        "panoptic": Classes((*things.names, *stuff.names), (*things.ids, *stuff.ids), num_things=len(things.names)),
        "detection": things,
        "semantic": Classes((*stuff.names, *semantic.names), (*stuff.ids, *semantic.ids)),
    }
