"""COCO annotation files, given by their path."""

from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

from ...formats.coco import SECTIONS, read_coco_file, read_row
from ...formats.json_files import read_start
from ...structures import DataError, UsageError
from ..coco_format import CocoConfig, CocoSemanticConfig
from ..dataset import DatasetConfig
from .base import DataPath, Part, PathFormat

OTHER_MARKS = ('"_via_', '"region_attributes"', '"shapes"')
"""Names by which the JSON files of VGG VIA and LabelMe are told from a COCO file."""
FILES_LOOKED_AT = 20
"""The number of JSON files in a folder whose beginning is looked at."""
LOOKED_UP = 3
"""The number of images, from the beginning of the file, that are looked for in a folder."""


PAIRS = (("train", "val"), ("train", "valid"), ("train", "test"))
"""The names of splits for training and validation, in the order of preference."""
SPLIT_FILES = (
    "{0}/_annotations.coco.json", "{0}/annotations.json", "annotations/instances_{0}*.json", "annotations/{0}*.json",
    "{0}*.json",
)  # fmt: skip
"""Where the file of a split is in a folder, in the order in which it is looked for; the first is Roboflow's."""
SINGLE_FILES = ("_annotations.coco.json", "annotations/*.json", "*.json")
"""Where the only file of a folder is."""


def _configure(data: DataPath, part: Part) -> DatasetConfig:
    """Return the config for boxes or, for the task ``semantic``, for class maps."""
    annotations = data.path
    if data.path.is_dir():
        pair = None if part == "all" else _find_pair(data.path)
        found = _find_single(data.path) if pair is None else pair[0 if part == "train" else 1]
        if found is None:
            what = "this folder holds no COCO file, or several of which none is named after a split"
            raise UsageError(what, "give the path of the file", file=data.path)
        annotations = found
    images = find_image_folder(annotations, data.images)
    if data.task == "semantic":
        return CocoSemanticConfig(images=images, annotations=annotations)
    return CocoConfig(images=images, annotations=annotations)


def _find_pair(folder: Path) -> tuple[Path, Path] | None:
    """Return the files for training and validation in a folder; None if there are none."""
    for pair in PAIRS:
        for pattern in SPLIT_FILES:
            train, val = (_only_file(folder, pattern.format(name)) for name in pair)
            if train is not None and val is not None:
                return train, val
    return None


def _find_single(folder: Path) -> Path | None:
    """Return the only COCO file in a folder; None if there is none, or several."""
    return next((found for pattern in SINGLE_FILES if (found := _only_file(folder, pattern)) is not None), None)


def _only_file(folder: Path, pattern: str) -> Path | None:
    """Return the only COCO file, also compressed, that matches a pattern; None if there is none, or several."""
    files = [path for name in (pattern, f"{pattern}.gz") for path in sorted(folder.glob(name))[:FILES_LOOKED_AT]]
    found = [path for path in files if _looks_like_coco(path)]
    return found[0] if len(found) == 1 else None


def _looks_like_coco(path: Path) -> bool:
    """Return whether the beginning of a JSON file is that of a COCO file."""
    start = read_start(path).lstrip()
    return start.startswith("{") and any(f'"{name}"' in start for name in SECTIONS) and not _is_other_tool(start)


def _is_other_tool(start: str) -> bool:
    """Return whether a JSON file begins like the file of a labeling tool."""
    return start.startswith("[") or any(mark in start for mark in OTHER_MARKS)


def _recognize(path: Path) -> bool:
    if path.is_dir():
        return _find_pair(path) is not None or _find_single(path) is not None
    if not path.is_file() or not path.name.lower().endswith((".json", ".json.gz")):
        return False
    return not _is_other_tool(read_start(path).lstrip())


def find_image_folder(annotations: Path, given: Path | None) -> Path:
    """Return the folder to which the ``file_name`` of the images of a COCO file refers.

    The folder ``given`` is tried first, then folders where exporters put images: that of the file, one named like the
    file, and ``images``. Raises DataError, which lists them, if none of them has one of the first images.
    """
    rows = [read_row(row, annotations) for row in read_coco_file(annotations).images[:LOOKED_UP]]
    names = [name for row in rows if isinstance(name := _file_name(row), str) and name]
    candidates: list[Path] = [] if given is None else [given]
    candidates += [folder for folder in dict.fromkeys(_usual_folders(annotations)) if folder != given]
    other_spellings = [spell(name) for name in names for spell in (_with_slashes, _last_part)]
    for spellings in (names, other_spellings):
        for folder in candidates:
            if not names or any((folder / name).is_file() for name in spellings):
                return folder
    tried = ", ".join(str(folder) for folder in candidates)
    raise DataError(
        f"its first image, {names[0]!r}, is in none of the folders {tried}",
        "give the folder of the images with --images (images= in Python)",
        case="missing-image", file=annotations,
    )  # fmt: skip


def _file_name(row: Any) -> Any:
    return row.get("file_name") if isinstance(row, dict) else None


def _with_slashes(name: str) -> str:
    return name.replace("\\", "/")


def _last_part(name: str) -> str:
    return PureWindowsPath(name).name


def _usual_folders(annotations: Path) -> Iterable[Path]:
    """Yield the folders where the images of a COCO file usually are."""
    folder, name = annotations.parent, annotations.name.partition(".json")[0].removeprefix("instances_")
    for parent in (folder, folder.parent):
        yield from (parent / name, parent / "images" / name, parent / "images", parent / "data")
        yield parent


COCO = PathFormat(
    key="coco",
    name="a COCO file",
    expected="a COCO file (NAME.json with images, annotations and categories) or a folder that holds one per split",
    recognize=_recognize,
    has_parts=lambda data: data.path.is_dir() and _find_pair(data.path) is not None,
    configure=_configure,
)
