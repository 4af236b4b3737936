"""Keypoints: the named points of a class of objects, such as the joints of a person.

A ground-truth keypoint is (x, y, visibility) in continuous pixels. The visibility is COCO's: 0 if the keypoint is not
labeled or not in the image, and its coordinates are then 0; 1 if it is labeled but hidden; 2 if it is visible. A
predicted keypoint is (x, y, score).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNLABELED, HIDDEN, VISIBLE = 0, 1, 2
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The keypoints of the objects of a data set: their names in order, connections, and left-right pairs."""

    names: tuple[str, ...]
    edges: Pairs = ()
    """Index pairs of keypoints that are connected by a line in drawings."""
    flip_pairs: Pairs = ()
    """Index pairs of a left and a right keypoint, which are swapped when the image is flipped horizontally."""
    offset: float = 0.5
    """The value added to the coordinates of a file to get continuous pixels; see ``CocoKeypointsConfig.offset``."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Skeleton":
        """Return the skeleton whose fields were written as JSON."""
        edges, flip_pairs = (tuple((first, second) for first, second in values[key]) for key in ("edges", "flip_pairs"))
        return cls(tuple(values["names"]), edges, flip_pairs, values["offset"])

    @property
    def flip_order(self) -> tuple[int, ...]:
        """The order of the keypoints after a horizontal flip: for each one, the index of its original."""
        order = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)


def find_flip_pairs(names: Sequence[str]) -> Pairs:
    """Return the index pairs of names that differ only in ``left`` and ``right``, as ``left_eye`` and ``right_eye``."""
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

_COCO_EDGES = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10), (1, 2),
    (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip

COCO_SKELETON = Skeleton(COCO_KEYPOINTS, _COCO_EDGES, find_flip_pairs(COCO_KEYPOINTS))
"""The skeleton of a person in COCO's annotation files."""
