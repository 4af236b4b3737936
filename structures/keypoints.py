"""Keypoints: the named points of a class of objects, such as the joints of a person.

A keypoint of the ground truth is (x, y, visibility) in continuous pixels. The visibility is COCO's: 0 for a keypoint
that is not labeled or not in the image, whose coordinates are then 0; 1 for a labeled one that is hidden; 2 for a
visible one. A predicted keypoint is (x, y, score).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNLABELED, HIDDEN, VISIBLE = 0, 1, 2
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The keypoints of the objects of a data set: their names in order, and which belong together."""

    names: tuple[str, ...]
    edges: Pairs = ()
    """Indices of two keypoints that a drawing connects."""
    flip_pairs: Pairs = ()
    """Indices of a left and a right keypoint, which change places when the image is mirrored."""
    offset: float = 0.5
    """The value that is added to the coordinates in a file to get continuous pixels; see ``CocoKeypointsConfig``."""

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Skeleton":
        """Return the skeleton whose fields were written as JSON."""
        edges, flip_pairs = (tuple((first, second) for first, second in values[key]) for key in ("edges", "flip_pairs"))
        return cls(tuple(values["names"]), edges, flip_pairs, values["offset"])

    @property
    def flip_order(self) -> tuple[int, ...]:
        """For each keypoint of a mirrored image, the index of the keypoint of the original image."""
        order = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)


def find_flip_pairs(names: Sequence[str]) -> Pairs:
    """Return the indices of each pair of names that differ in ``left`` and ``right``: ``left_eye``, ``right_eye``."""
    index_of = {name: index for index, name in enumerate(names)}
    partners = {name: name.replace("left", "right").replace("Left", "Right") for name in names}
    return tuple(
        (index_of[name], index_of[other]) for name, other in partners.items() if other != name and other in index_of
    )


COCO_KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
"""The 17 keypoints of a person in COCO."""
