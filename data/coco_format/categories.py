"""The classes of a COCO file, and the mapping between labels and category ids."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...formats.checks import as_id, is_text
from ...structures import DataError, Skeleton, UsageError, suggest
from .keypoints import CocoKeypointsConfig, read_skeleton

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 object classes of COCO, in the order of their ids in the official files."""

COCO_STUFF_CLASSES = (
    "banner", "blanket", "bridge", "cardboard", "counter", "curtain", "door-stuff", "floor-wood", "flower", "fruit",
    "gravel", "house", "light", "mirror-stuff", "net", "pillow", "platform", "playingfield", "railroad", "river",
    "road", "roof", "sand", "sea", "shelf", "snow", "stairs", "tent", "towel", "wall-brick", "wall-stone",
    "wall-tile", "wall-wood", "water-other", "window-blind", "window-other", "tree-merged", "fence-merged",
    "ceiling-merged", "sky-other-merged", "cabinet-merged", "table-merged", "floor-other-merged", "pavement-merged",
    "mountain-merged", "grass-merged", "dirt-merged", "paper-merged", "food-other-merged", "building-other-merged",
    "rock-merged", "wall-other-merged", "rug-merged",
)  # fmt: skip
"""The 53 stuff classes of COCO's panoptic files, in the order of their ids."""

OTHER_CLASS, UNDECLARED = -1, -2
"""Used in place of a label: a class that is not selected, and a category id that the file does not declare."""


@dataclass(frozen=True, slots=True)
class Categories:
    """The selected classes, in the order of their labels."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    label_of: Mapping[Any, int]
    """The label of each category id of the file; ``OTHER_CLASS`` for a class that is not selected."""
    skeleton: Skeleton | None
    """The keypoints of the objects; None if they are not read."""


def read_categories(
    categories: list[Any],
    wanted: Sequence[str] | None,
    path: str | os.PathLike[str],
    keypoints: CocoKeypointsConfig | None = None,
) -> Categories:
    """Return the ``wanted`` classes, in this order; None selects all classes, sorted by id.

    With a ``keypoints`` config, at least one of them must have keypoints. Raises DataError for invalid categories, and
    UsageError for a wanted class that the file does not have.
    """

    def problem(case: str, what: str) -> DataError:
        return DataError(what, "correct the categories", case=case, file=path)

    if not categories:
        raise problem("no-categories", "the list of categories is empty")
    names: dict[int, str] = {}
    for category in categories:
        category_id, name = (category.get("id"), category.get("name")) if isinstance(category, dict) else (None, None)
        category_id = as_id(category_id)
        if not isinstance(category_id, int) or not is_text(name):
            raise problem("bad-category", f"a category needs an integer id and a name; found {category!r:.80}")
        if category_id in names:
            raise problem("duplicate-category", f"two categories have the id {category_id}")
        names[category_id] = name
    ids = {name: category_id for category_id, name in names.items()}
    if len(ids) < len(names):
        twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
        raise problem("duplicate-category", f"several categories are named {', '.join(map(repr, twice))}")
    if wanted is None:
        wanted = [names[category_id] for category_id in sorted(names)]
    for name in wanted:
        if name not in ids:
            raise UsageError(f"there is no class {name!r} in the annotations", suggest(name, ids), file=path)
    chosen = tuple(ids[name] for name in wanted)
    labels = {category_id: label for label, category_id in enumerate(chosen)}
    skeleton = None
    if keypoints is not None:
        entries = {category["id"]: category for category in categories}
        skeleton = read_skeleton([entries[category_id] for category_id in chosen], keypoints, path)
    return Categories(tuple(wanted), chosen, dict.fromkeys(names, OTHER_CLASS) | labels, skeleton)
