"""COCO annotation files, given by their path."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...formats.coco import read_coco_file, read_row
from ...structures import DataError
from ..coco_format import CocoConfig, CocoSemanticConfig
from ..dataset import DatasetConfig
from .base import DataPath, Part, PathFormat

LOOKED_UP = 3
"""The number of images, from the beginning of the file, that are looked for in a folder."""


def _configure(data: DataPath, part: Part) -> DatasetConfig:
    """Return the config for boxes or, for the task ``semantic``, for class maps."""
    images = find_image_folder(data.path, data.images)
    if data.task == "semantic":
        return CocoSemanticConfig(images=images, annotations=data.path)
    return CocoConfig(images=images, annotations=data.path)


def find_image_folder(annotations: Path, given: Path | None) -> Path:
    """Return the folder to which the ``file_name`` of the images of a COCO file refers.

    The folder ``given`` is tried first, then folders where exporters put images: that of the file, one named like the
    file, and ``images``. Raises DataError, which lists them, if none of them has one of the first images.
    """
    rows = [read_row(row, annotations) for row in read_coco_file(annotations).images[:LOOKED_UP]]
    names = [name for row in rows if isinstance(name := _file_name(row), str) and name]
    candidates: list[Path] = [] if given is None else [given]
    candidates += [folder for folder in dict.fromkeys(_usual_folders(annotations)) if folder != given]
    for folder in candidates:
        if not names or any((folder / name).is_file() for name in names):
            return folder
    tried = ", ".join(str(folder) for folder in candidates)
    raise DataError(
        f"its first image, {names[0]!r}, is in none of the folders {tried}",
        "give the folder of the images with --images (images= in Python)",
        case="missing-image", file=annotations,
    )  # fmt: skip


def _file_name(row: Any) -> Any:
    return row.get("file_name") if isinstance(row, dict) else None


def _usual_folders(annotations: Path) -> Iterable[Path]:
    """Yield the folders where the images of a COCO file usually are."""
    folder, name = annotations.parent, annotations.stem.removeprefix("instances_")
    for parent in (folder, folder.parent):
        yield from (parent / name, parent / "images" / name, parent / "images")
        yield parent


COCO = PathFormat(
    key="coco",
    name="a COCO file",
    expected="a COCO file (NAME.json with images, annotations and categories)",
    recognize=lambda path: path.suffix.lower() == ".json" and path.is_file(),
    has_parts=lambda data: False,
    configure=_configure,
)
