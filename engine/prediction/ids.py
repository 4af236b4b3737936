"""Image and category ids of predictions: those of a COCO file, or ids that count from 1."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...data.voc_format import BACKGROUND
from ...structures import THINGS, Classes, UsageError, suggest

CLASSES_WITHOUT_ID = (BACKGROUND, THINGS)
"""Semantic classes that Vertebra's data sets add, and that annotation files therefore lack."""


class ImageIds:
    """The ids of the images in a COCO file, by file name; ``file`` is the path of the file for error messages."""

    def __init__(self, truth: Mapping[str, Any], file: Path) -> None:
        self._file = file
        self._by_name = {str(image.get("file_name")): image["id"] for image in truth["images"]}
        self._short_names = Counter(Path(name).name for name in self._by_name)
        self._by_short_name = {Path(name).name: image_id for name, image_id in self._by_name.items()}

    def find(self, name: str) -> int | str:
        """Return the id of the image with this name.

        A name that is not in the file is matched by its last path component, if only one image has it; otherwise
        UsageError is raised.
        """
        short_name = Path(name).name
        if name in self._by_name:
            return self._by_name[name]
        if self._short_names[short_name] == 1:
            return self._by_short_name[short_name]
        fault = "has several images" if self._short_names[short_name] else "has no image"
        raise UsageError(
            f"{fault} with the file name {name!r}",
            "give the folder that its file names are relative to, or leave out --annotations",
            file=self._file,
        )

    def require_different(self, names: Sequence[str]) -> None:
        """Raise UsageError if one of the names has no id, or if two of them have the same."""
        found: dict[int | str, str] = {}
        for name in names:
            image_id = self.find(name)
            if image_id in found:
                raise UsageError(
                    f"the images {found[image_id]!r} and {name!r} would both have the id {image_id!r}",
                    "predict one of them",
                    file=self._file,
                )
            found[image_id] = name


def find_category_ids(classes: Classes, truth: Mapping[str, Any], file: Path) -> Classes:
    """Return the classes with their category ids in a COCO file, matched by name.

    Semantic classes that annotation files lack, such as the background, get an id that the file does not use.
    """
    ids = {str(category.get("name")): category["id"] for category in truth["categories"]}
    missing = [name for name in classes.names if name not in ids and name not in CLASSES_WITHOUT_ID]
    if missing:
        raise UsageError(f"has no category named {missing[0]!r}", suggest(missing[0], ids), file=file)
    unused = 0 if 0 not in ids.values() else max(ids.values()) + 1
    return replace(classes, ids=tuple(ids.get(name, unused) for name in classes.names))
