"""Several COCO files as one: of the same images, such as a file per class, or of different ones."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..structures import DataError
from .coco import CocoFile, LabelOrigin, Place, read_coco_file, read_row


def merge_coco_files(paths: Sequence[Path]) -> CocoFile:
    """Read COCO files as one; images with the same ``file_name`` are one image, categories with the same name one.

    Category ids and image ids are kept if they are consistent. Otherwise categories are numbered from 1 in the order
    of the files, and the id of an image is its ``file_name``. Raises DataError if a file cannot be read.
    """
    files = [read_coco_file(path) for path in paths]
    categories, category_ids = _merge_categories(files)
    images, image_ids = _merge_images(files, paths)
    origin = LabelOrigin()
    annotations: list[msgspec.Raw] = []
    for number, (file, path) in enumerate(zip(files, paths, strict=True)):
        for row, raw in enumerate(file.annotations):
            entry = read_row(raw, path)
            item = f"row {row}"
            if isinstance(entry, dict):
                item = f"id {entry['id']}" if "id" in entry else item
                entry = entry | {
                    "id": len(annotations) + 1,
                    "image_id": _look_up(image_ids[number], entry.get("image_id")),
                    "category_id": _look_up(category_ids[number], entry.get("category_id")),
                }
            annotations.append(msgspec.Raw(msgspec.json.encode(entry)))
            origin.places.append(Place(str(path), item))
    digest = hashlib.sha256("".join(file.digest for file in files).encode()).hexdigest()
    return CocoFile(digest, images, annotations, categories, origin)


def _look_up(ids: Mapping[Any, Any], value: Any) -> Any:
    return ids.get(value) if isinstance(value, int | str) else None


def _merge_categories(files: Sequence[CocoFile]) -> tuple[list[Any], list[dict[Any, int]]]:
    """Return the categories of all files, and for each file the new id of each of its ids."""
    names: dict[int, set[str]] = {}
    merged: dict[str, dict[str, Any]] = {}
    for category in (category for file in files for category in file.categories):
        if not isinstance(category, dict) or type(category.get("id")) is not int or "name" not in category:
            return [category], [{} for _ in files]  # the checks of categories name what is wrong with it
        names.setdefault(category["id"], set()).add(str(category["name"]))
        merged.setdefault(str(category["name"]), category)
    keep = all(len(found) == 1 for found in names.values()) and len(names) == len(merged)
    numbered = {
        name: category if keep else category | {"id": number}
        for number, (name, category) in enumerate(merged.items(), start=1)
    }
    maps = [{category["id"]: numbered[str(category["name"])]["id"] for category in file.categories} for file in files]
    return list(numbered.values()), maps


def _merge_images(
    files: Sequence[CocoFile], paths: Sequence[Path]
) -> tuple[list[msgspec.Raw], list[dict[Any, int | str]]]:
    """Return the images of all files, and for each file the new id of each of its ids."""
    entries = [[read_row(raw, path) for raw in file.images] for file, path in zip(files, paths, strict=True)]
    merged: dict[str, dict[str, Any]] = {}
    ids: dict[Any, set[str]] = {}
    for images, path in zip(entries, paths, strict=True):
        for entry in images:
            if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
                what = f"an image needs an id and a file_name; found {entry!r:.80}"
                raise DataError(what, "correct the entry", case="bad-image", file=path)
            merged.setdefault(entry["file_name"], entry)
            ids.setdefault(repr(entry.get("id")), set()).add(entry["file_name"])
    keep = all(len(found) == 1 for found in ids.values()) and len(ids) == len(merged)
    final = {name: entry if keep else entry | {"id": name} for name, entry in merged.items()}
    maps = [
        {entry["id"]: final[entry["file_name"]]["id"] for entry in images if isinstance(entry.get("id"), int | str)}
        for images in entries
    ]
    return [msgspec.Raw(msgspec.json.encode(entry)) for entry in final.values()], maps
