"""The annotations of a split as a COCO document that is corrected step by step, with a log of every change."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ....formats.coco import CocoFile
from ....structures import is_number
from ..file_objects import FileObjects, tabulate_objects

Entry = dict[str, Any]


@dataclass(slots=True)
class Document:
    """A COCO document in memory, the files of its images, and what has been changed."""

    split: str
    images: list[Entry]
    annotations: list[Entry]
    categories: list[Entry]
    files: dict[int | str, Path]
    """The image file of each image id."""
    min_box: float = 1.0
    """The least side of a box in pixels."""
    changes: list[Entry] = field(default_factory=list)
    sizes: dict[int | str, tuple[int, int]] = field(default_factory=dict)
    """The upright (height, width) of each image file that can be decoded."""
    digests: dict[int | str, bytes] = field(default_factory=dict)
    """A hash of each image file."""

    def log(self, case: str, entry: Entry, before: Any = None, after: Any = None) -> None:
        """Log a change of an entry: its ids, and the value that was changed before and after."""
        ids = {name: entry[name] for name in ("id", "image_id") if entry.get(name) is not None}
        change = {"split": self.split, "change": case, **ids, "before": before, "after": after}
        self.changes.append({name: value for name, value in change.items() if value is not None})

    def set(self, case: str, entry: Entry, name: str, value: Any) -> None:
        """Set a field of an entry, and log it if that changes it."""
        before = entry.get(name)
        if name not in entry or before != value or type(before) is not type(value):
            entry[name] = value
            self.log(case, entry, {name: before}, {name: value})

    def keep(self, section: str, is_kept: Callable[[Entry], bool], case: str) -> None:
        """Keep the entries of a section for which ``is_kept`` is true; log the others."""
        kept = []
        for entry in getattr(self, section):
            if is_kept(entry):
                kept.append(entry)
            else:
                shown = entry.get("bbox", entry.get("file_name", entry.get("name")))
                self.log(case, entry, shown if section != "annotations" else {"bbox": shown})
        setattr(self, section, kept)

    def tabulate(self) -> FileObjects:
        """Return the annotations as arrays; ``rows`` are indices of ``annotations``."""
        images, annotations = (
            [msgspec.Raw(msgspec.json.encode(entry)) for entry in part] for part in (self.images, self.annotations)
        )
        return tabulate_objects(CocoFile("", images, annotations, self.categories), with_polygons=True)

    def size_of(self, annotation: Entry) -> tuple[int, int]:
        """Return the (height, width) of the image of an annotation."""
        return self.sizes[annotation["image_id"]]

    def content(self) -> Entry:
        """Return the content of the COCO file."""
        return {
            "info": {}, "images": self.images, "annotations": self.annotations, "categories": self.categories,
        }  # fmt: skip


def is_box(value: Any) -> bool:
    """Return whether a value is a list of four finite numbers."""
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(is_number, value)):
        return False
    return all(abs(number) < 1e9 for number in value)
