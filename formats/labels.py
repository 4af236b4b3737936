"""Annotations in the format of any labeling tool, collected as the sections of a COCO file.

A reader of a format is a :class:`LabelFormat`: a function that adds the images and objects of its files to a
:class:`LabelCollector`. The values are checked later by the checks of COCO files. Each object has a place, its file
and for example ``line 3``, which error messages name in place of an annotation id.
"""

import hashlib
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..structures import DataError
from .coco import CocoFile, LabelOrigin, Place
from .images import IMAGE_SUFFIXES, image_size
from .label_shapes import Shape


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """A request to read annotations: a path, and optionally one of the splits that the data list."""

    path: Path
    split: str | None = None
    """One of the names that the format's ``list_splits`` returns; None reads everything."""
    images: Path | None = None
    """The folder of the images, if they are not where the format puts them."""
    class_names: tuple[str, ...] = ()
    """Classes that may occur nowhere in the files; used by formats whose files declare no classes."""


def image_root(request: LabelRequest) -> Path:
    """Return the folder of the images that was given; else the folder of the annotations."""
    return request.images or (request.path if request.path.is_dir() else request.path.parent)


@dataclass(frozen=True, slots=True)
class LabelFormat:
    """A format of annotations, and the functions that recognize and read it."""

    name: str
    """The name in configs and for ``--data-format``, such as ``yolo``."""
    title: str
    """The name for messages, with its article: ``a YOLO data set``."""
    expected: str
    """How such data look on disk, for the error about a path that fits no format."""
    recognize: Callable[[Path], bool]
    """Return whether a path is in this format."""
    read: Callable[[LabelRequest], CocoFile]
    """Read the annotations; raise DataError if the files as a whole cannot be used."""
    list_splits: Callable[[Path], tuple[str, ...]] = lambda path: ()
    """Return the names of the splits that the data list, such as ``("train", "val")``."""
    list_folders: Callable[[LabelRequest], Sequence[Path]] = lambda request: (request.path,)
    """Return the files and folders that the annotations depend on; if they do not change, a cache entry stays valid."""
    find_root: Callable[[LabelRequest], Path] = image_root
    """Return the folder to which the names of the images refer."""
    takes_images: bool = True
    """Whether the folder of the images may be given; otherwise the format says where they are."""


@dataclass(slots=True)
class LabelCollector:
    """A collector of the images and objects of a data set, given one after the other."""

    root: Path
    """The folder to which the names of the images refer."""
    class_names: Sequence[str] | None = None
    """The classes that the files declare, whose category ids count from ``first_id``; None: those of the objects."""
    first_id: int = 1
    extra_names: Sequence[str] = ()
    """Classes without objects, if the files declare none."""
    _images: list[dict[str, Any]] = field(default_factory=list)
    _annotations: list[dict[str, Any]] = field(default_factory=list)
    _rows: dict[str, int] = field(default_factory=dict)
    _origin: LabelOrigin = field(default_factory=LabelOrigin)
    _keypoints: Mapping[str, Any] = field(default_factory=dict)

    def add_image(self, name: str, file: Path, size: tuple[int, int] | None = None) -> int:
        """Add an image, given by its path below the root, and return its row; an image that is known is not added.

        ``file`` is the file with its annotations. A ``size`` (height, width) of None is read from the image.
        """
        name = Path(name).as_posix()
        if name in self._rows:
            return self._rows[name]
        row = self._rows[name] = len(self._images)
        if size is None:
            try:
                size = image_size(self.root / name, name) if name else None
            except DataError as error:
                exists = (self.root / name).is_file()
                self._origin.image_problems[row] = error if exists else _missing_image(self.root / name, name, file)
        height, width = size or (1, 1)
        self._images.append({"id": name, "file_name": name, "height": height, "width": width})
        return row

    def refuse_image(self, name: str, error: DataError) -> None:
        """Add an image whose annotations cannot be read."""
        row = self._rows[name] = len(self._images)
        self._origin.image_problems[row] = error
        self._images.append({"id": name, "file_name": name, "height": 1, "width": 1})

    def size(self, image: int) -> tuple[int, int]:
        """Return the (height, width) of an image."""
        return self._images[image]["height"], self._images[image]["width"]

    def declare_keypoints(self, names: Sequence[str], skeleton: Sequence[tuple[int, int]] = ()) -> None:
        """Declare the keypoints of the objects of all classes; connections count from 1."""
        self._keypoints = {"keypoints": list(names), "skeleton": [list(edge) for edge in skeleton]}

    def add_object(self, image: int, label: str | int, place: Place, shape: Shape) -> None:
        """Add an object of an image; a ``label`` that is a number is a category id."""
        values = shape.numbers()
        if not all(map(math.isfinite, values)):
            self.refuse_object(image, place, "non-finite-box", f"has a coordinate that is not finite: {values!r:.80}")
            return
        if isinstance(label, str) and self.class_names is not None and label not in self.class_names:
            what = f"is a {label!r:.80}, which is not one of the {len(self.class_names)} classes"
            self.refuse_object(image, place, "unknown-category", what)
            return
        entry = {"id": len(self._annotations) + 1, "image_id": self._images[image]["id"], "category_id": label}
        self._annotations.append(entry | shape.fields())
        self._origin.places.append(place)

    def refuse_object(self, image: int, place: Place, case: str, what: str, fix: str = "correct it") -> None:
        """Add an object that cannot be used, with the reason, which follows the object in the message."""
        row = len(self._annotations)
        image_id = self._images[image]["id"]
        self._annotations.append({"id": row + 1, "image_id": image_id, "category_id": None})
        self._origin.places.append(place)
        self._origin.problems[row] = DataError(
            what, fix, case=case, file=place.file, image_id=image_id,
            annotation_id=place.item,
        )  # fmt: skip

    def skip_object(self, case: str, place: Place) -> None:
        """Count an object that has no form of its own in a data set of boxes and masks, such as a line."""
        self._origin.skipped.append((case, str(place)))

    def note(self, case: str, item: str) -> None:
        """Count something that is worth knowing about."""
        self._origin.notes.append((case, item))

    def note_unlabeled(self, folder: Path | None, labeled: Collection[str]) -> None:
        """Count the images in a folder that have no file of labels; they are not in the data set."""
        for name in list_images_below(folder) if folder is not None else ():
            path = os.path.relpath(os.path.join(folder or "", name), self.root)  # noqa: PTH118
            if path not in labeled:
                self.note("unlabeled-image", path)

    def finish(self) -> CocoFile:
        """Return everything that was collected as the sections of a COCO file."""
        found = {entry["category_id"] for entry in self._annotations if isinstance(entry["category_id"], str)}
        names = sorted(found | set(self.extra_names)) if self.class_names is None else list(self.class_names)
        for name in sorted(set(self.extra_names) - found) if self.class_names is None else ():
            self.note("class-without-objects", name)
        categories = [
            {"id": number, "name": name, **self._keypoints} for number, name in enumerate(names, self.first_id)
        ]
        ids = {category["name"]: category["id"] for category in categories}
        digest = hashlib.sha256(msgspec.json.encode(categories))
        sections: list[list[msgspec.Raw]] = []
        for entries in (self._images, self._annotations):
            rows = [msgspec.json.encode(_with_category_id(entry, ids)) for entry in entries]
            digest.update(b"\n".join(rows))
            sections.append([msgspec.Raw(row) for row in rows])
        return CocoFile(digest.hexdigest(), sections[0], sections[1], categories, self._origin)


def _with_category_id(entry: dict[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    label = entry.get("category_id")
    return entry | {"category_id": ids[label]} if isinstance(label, str) else entry


def _missing_image(path: Path, name: str, file: Path) -> DataError:
    return DataError(
        f"there is no such image, but {file.name} has its annotations", "add the image, or give the folder of the "
        "images", case="missing-image", file=path, image_id=name,
    )  # fmt: skip


def list_images_below(folder: Path) -> list[str]:
    """Return the sorted paths of the image files below a folder, relative to it; hidden files are left out."""
    names = (path.relative_to(folder).as_posix() for path in files_below(folder))
    return sorted(name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)  # noqa: PTH122


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, without hidden ones; links to folders are followed once."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))
        seen.add(real)
