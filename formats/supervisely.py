"""Supervisely: ``meta.json`` with the classes, and folders with ``img/NAME`` and ``ann/NAME.json``.

The format is described on docs.supervisely.com.

| geometry | object |
|---|---|
| ``rectangle`` | a box, whose corners are indices of its first and last pixel |
| ``polygon`` | a polygon and its box; with holes, a bitmap |
| ``bitmap`` | a bitmap |
| others, such as ``point``, ``line`` and ``graph`` | counted, not used |
"""

import base64
import binascii
import io
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import DataError
from .coco import CocoFile, Place
from .json_files import read_json
from .label_shapes import Shape, paste, rasterize
from .label_values import ShapeError, as_dict, as_list, as_points, as_size, file_problem, find_image
from .labels import LabelCollector, LabelFormat, LabelRequest, image_root
from .pillow import image_errors_as_data_errors, open_image

MOST_BYTES = 2**28
"""The maximum size of the PNG file of a mask."""


def _recognize(path: Path) -> bool:
    return path.is_dir() and (path / "meta.json").is_file() and any(_annotation_folders(path))


def _annotation_folders(path: Path) -> list[Path]:
    return sorted(folder for folder in (*path.glob("ann"), *path.glob("*/ann")) if folder.is_dir())


def _list_splits(path: Path) -> tuple[str, ...]:
    return tuple(folder.parent.name for folder in _annotation_folders(path) if folder.parent != path)


def _read(request: LabelRequest) -> CocoFile:
    path = request.path
    meta = read_json(path / "meta.json")
    classes = meta.get("classes") if isinstance(meta, dict) else None
    if not isinstance(classes, list) or not all(isinstance(entry, dict) and "title" in entry for entry in classes):
        raise file_problem("there is no list of classes with titles", path / "meta.json", "Supervisely")
    collector = LabelCollector(image_root(request), list(dict.fromkeys(str(entry["title"]) for entry in classes)))
    for folder in _annotation_folders(path):
        if request.split in (None, folder.parent.name):
            for file in sorted(folder.glob("*.json")):
                _read_file(collector, file)
    return collector.finish()


def _read_file(collector: LabelCollector, file: Path) -> None:
    """Add the image and the objects of one file."""
    name = find_image([file.name.removesuffix(".json")], [file.parent.parent / "img"], collector.root)
    try:
        content = read_json(file)
        objects = content.get("objects") if isinstance(content, dict) else None
        if not isinstance(objects, list):
            raise file_problem("there is no list of objects", file, "Supervisely")
    except DataError as error:
        error.image_id = name
        collector.refuse_image(name, error)
        return
    size = as_dict(content.get("size"))
    image = collector.add_image(name, file, as_size(size.get("height"), size.get("width")))
    for number, entry in enumerate(objects, start=1):
        place = Place(os.fspath(file), f"object {number}")
        fields = as_dict(entry)
        try:
            shape = _as_shape(fields, collector.size(image))
        except ShapeError as error:
            collector.refuse_object(image, place, "bad-shape", str(error))
            continue
        if shape is None:
            collector.skip_object("point-or-line", place)
        else:
            collector.add_object(image, str(fields.get("classTitle")), place, shape)


def _as_shape(fields: dict[str, Any], size: tuple[int, int]) -> Shape | None:
    """Return the shape of an object; None if it is neither a box nor a mask."""
    geometry = fields.get("geometryType")
    points = as_dict(fields.get("points"))
    if geometry == "rectangle":
        x1, y1, x2, y2 = as_points(points.get("exterior"), 2)[:4]
        return Shape((min(x1, x2), min(y1, y2), max(x1, x2) + 1, max(y1, y2) + 1))
    if geometry == "polygon":
        outline = as_points(points.get("exterior"), 3)
        holes = [as_points(hole, 3) for hole in as_list(points.get("interior"))]
        if not holes:
            return Shape(polygons=[outline])
        return Shape.of_bitmap(rasterize([outline], size) & ~rasterize(holes, size))
    return _as_bitmap(as_dict(fields.get("bitmap")), size) if geometry == "bitmap" else None


def _as_bitmap(fields: dict[str, Any], size: tuple[int, int]) -> Shape:
    """Return the shape of a bitmap: a PNG in zlib in base64, at its origin; its alpha or gray is the mask."""
    origin = as_points([fields.get("origin")], 1)
    try:
        packed = base64.b64decode(str(fields.get("data")), validate=True)
        content = zlib.decompressobj().decompress(packed, MOST_BYTES)
        with image_errors_as_data_errors("mask", "mask"), open_image(io.BytesIO(content)) as picture:
            pixels = np.array(picture.convert("RGBA") if picture.mode in ("RGBA", "P", "LA") else picture.convert("L"))
    except (binascii.Error, ValueError, zlib.error, DataError):
        raise ShapeError("has a bitmap that is not a PNG file in zlib in base64") from None
    part = pixels[..., 3] > 0 if pixels.ndim == 3 else pixels > 0
    return Shape.of_bitmap(paste(part, round(origin[0]), round(origin[1]), size))


SUPERVISELY = LabelFormat(
    name="supervisely",
    title="a Supervisely folder",
    expected="a Supervisely folder (meta.json and ann/*.json)",
    recognize=_recognize,
    read=_read,
    list_splits=_list_splits,
)
