"""Annotations that are to be written in another format, and counts of what that format cannot hold."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ConvertedImage:
    """An image and its objects, as entries of a COCO file that were checked."""

    name: str
    """The file name of the image, unique in the data set also without its suffix."""
    size: tuple[int, int]
    """(height, width)."""
    entry: Mapping[str, Any]
    """The entry of ``images``."""
    objects: Sequence[Mapping[str, Any]]
    """The entries of ``annotations``, with a ``segmentation`` only if it is valid."""


@dataclass(slots=True)
class ConvertedData:
    """The images of each split, their classes, and what was lost."""

    categories: Sequence[Mapping[str, Any]]
    """The entries of ``categories``, sorted by id."""
    splits: dict[str, list[ConvertedImage]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    """How often each thing was left out or changed, in the words of a message."""

    def labels(self) -> dict[int, int]:
        """Return the label of each category id: its position among the categories."""
        return {category["id"]: label for label, category in enumerate(self.categories)}

    def all_objects(self) -> list[Mapping[str, Any]]:
        """Return the objects of all splits."""
        return [entry for images in self.splits.values() for image in images for entry in image.objects]


def corners(entry: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Return the box of an annotation as x1, y1, x2, y2."""
    x, y, width, height = map(float, entry["bbox"])
    return x, y, x + width, y + height
