"""LabelMe: a JSON file per image, with its shapes (github.com/wkentaro/labelme, ``label_file.py``).

| shape | object |
|---|---|
| ``polygon`` | a polygon and its box |
| ``rectangle`` | a box and its outline, as LabelMe's own conversion to COCO does |
| ``circle``, ``rotation`` (X-AnyLabeling) | the outline and its box |
| ``mask`` | a bitmap |
| ``point``, ``points``, ``line``, ``linestrip``; the label ``__ignore__`` | counted, not used |

Shapes of one label and ``group_id`` are one object, as in LabelMe's conversion. An object that X-AnyLabeling marks as
``difficult`` is an ignore region. LabelMe turns images upright before it shows them, so that sizes are those of the
upright image.
"""

import base64
import binascii
import io
import itertools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import DataError
from .coco import CocoFile, Place
from .json_files import read_json, read_start
from .label_shapes import Shape, paste, rasterize
from .label_values import ShapeError, as_points, as_size, file_problem, find_image
from .labels import LabelCollector, LabelFormat, LabelRequest, files_below, image_root
from .outlines import ellipse_outline
from .pillow import image_errors_as_data_errors, open_image
from .rle import decode_mask

IGNORED_LABEL = "__ignore__"
"""The label of shapes that LabelMe's own conversions leave out."""
UNUSED_SHAPES = ("point", "points", "line", "linestrip")
SPLITS = ("train", "val", "valid", "test")
LOOKED_AT = 20
"""The number of JSON files that are looked at to recognize a folder."""


def _recognize(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() == ".json" and _is_labelme(path)
    files = itertools.chain.from_iterable(path.glob(pattern) for pattern in ("*.json", "*/*.json", "*/*/*.json"))
    return path.is_dir() and any(map(_is_labelme, itertools.islice(files, LOOKED_AT)))


def _is_labelme(file: Path) -> bool:
    start = read_start(file).lstrip()
    return start.startswith("{") and '"shapes"' in start and '"regions"' not in start


def _list_splits(path: Path) -> tuple[str, ...]:
    return tuple(name for name in SPLITS if path.is_dir() and (path / name).is_dir() and _recognize(path / name))


def _read(request: LabelRequest) -> CocoFile:
    root = image_root(request)
    folder = request.path if request.split is None else request.path / request.split
    collector = LabelCollector(root, extra_names=request.class_names)
    labeled: set[str] = set()
    for file in files_below(folder) if folder.is_dir() else [folder]:
        if file.suffix.lower() == ".json":
            labeled.add(_read_file(collector, file, root))
    collector.note_unlabeled(folder if folder.is_dir() else None, labeled)
    return collector.finish()


def _read_file(collector: LabelCollector, file: Path, root: Path) -> str:
    """Add the image and the objects of one file, and return the name of the image."""
    try:
        content = read_json(file)
        shapes = content.get("shapes") if isinstance(content, dict) else None
        path = content.get("imagePath") if isinstance(content, dict) else None
        if not isinstance(shapes, list) or not isinstance(path, str):
            raise file_problem("there are no shapes and no imagePath", file, "LabelMe")
    except DataError as error:
        name = find_image([f"{file.stem}.jpg", f"{file.stem}.png"], [file.parent], root)
        error.image_id = name
        collector.refuse_image(name, error)
        return name
    name = find_image([path], [file.parent, root], root)
    image = collector.add_image(name, file, as_size(content.get("imageHeight"), content.get("imageWidth")))
    groups: dict[Any, list[tuple[Place, dict[str, Any]]]] = {}
    for number, shape in enumerate(shapes, start=1):
        place = Place(os.fspath(file), f"shape {number}")
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            collector.refuse_object(image, place, "bad-shape", f"is {shape!r:.80}, which has no label")
        elif shape["label"] == IGNORED_LABEL:
            collector.skip_object("ignored-label", place)
        elif shape.get("shape_type", "polygon") in UNUSED_SHAPES:
            collector.skip_object("point-or-line", place)
        else:
            group = shape.get("group_id")
            key = number if group is None else (shape["label"], repr(group))
            groups.setdefault(key, []).append((place, shape))
    for members in groups.values():
        _add_object(collector, image, members)
    return name


def _add_object(collector: LabelCollector, image: int, members: list[tuple[Place, dict[str, Any]]]) -> None:
    """Add the object of the shapes of a group, at the place of its first shape."""
    parts: list[Shape] = []
    for place, shape in members:
        try:
            parts.append(_as_shape(shape, collector.size(image)))
        except ShapeError as error:
            collector.refuse_object(image, place, "bad-shape", str(error))
    if not parts:
        return
    place, first = members[0]
    crowd = any(shape.get("difficult") is True for _, shape in members)
    try:
        united = _united(parts, collector.size(image), crowd)
    except ShapeError as error:
        collector.refuse_object(image, place, "bad-shape", str(error))
    else:
        collector.add_object(image, first["label"], place, united)


def _as_shape(shape: dict[str, Any], size: tuple[int, int]) -> Shape:
    """Return the box and the mask of one shape; raise ShapeError if it cannot be used."""
    shape_type = shape.get("shape_type") or "polygon"
    if shape_type == "mask":
        return _as_mask(shape, size)
    if shape_type == "circle":
        x, y, edge_x, edge_y = as_points(shape.get("points"), 2)[:4]
        radius = math.hypot(edge_x - x, edge_y - y)
        return Shape((x - radius, y - radius, x + radius, y + radius), [ellipse_outline(x, y, radius, radius)])
    if shape_type == "rectangle":
        points = as_points(shape.get("points"), 2)
        x1, x2, y1, y2 = min(points[::2]), max(points[::2]), min(points[1::2]), max(points[1::2])
        return Shape((x1, y1, x2, y2), [[x1, y1, x2, y1, x2, y2, x1, y2]])
    if shape_type in ("polygon", "rotation"):
        return Shape(polygons=[as_points(shape.get("points"), 3)])
    raise ShapeError(f"has the shape_type {shape_type!r:.40}, which is not one of LabelMe's")


def _as_mask(shape: dict[str, Any], size: tuple[int, int]) -> Shape:
    """Return the bitmap of a shape, which the file has as a PNG of the box that its two points span."""
    x, y = (round(value) for value in as_points(shape.get("points"), 1)[:2])
    data = shape.get("mask")
    try:
        content = base64.b64decode(data if isinstance(data, str) else "", validate=True)
        with image_errors_as_data_errors("mask", "mask"), open_image(io.BytesIO(content)) as picture:
            part = np.array(picture.convert("L")) > 0
    except (binascii.Error, ValueError, DataError):
        raise ShapeError("has a mask that is not a PNG file in base64") from None
    return Shape.of_bitmap(paste(part, x, y, size))


def _united(parts: list[Shape], size: tuple[int, int], crowd: bool) -> Shape:
    """Return one shape of several parts."""
    if len(parts) == 1:
        return Shape(parts[0].box, parts[0].polygons, parts[0].mask, crowd)
    if all(part.mask is None for part in parts):
        return Shape(None, [polygon for part in parts for polygon in part.polygons or ()], crowd=crowd)
    bitmap = np.zeros(size, bool)
    for part in parts:
        bitmap |= rasterize(part.polygons or (), size) if part.mask is None else decode_mask(part.mask).astype(bool)
    united = Shape.of_bitmap(bitmap)
    return Shape(united.box, None, united.mask, crowd)


LABELME = LabelFormat(
    name="labelme",
    title="a LabelMe folder",
    expected="a LabelMe folder (a .json per image, with shapes)",
    recognize=_recognize,
    read=_read,
    list_splits=_list_splits,
)
