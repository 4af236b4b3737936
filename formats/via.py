"""VGG Image Annotator 1 and 2: a project, its annotations as JSON, or as CSV (robots.ox.ac.uk/~vgg/software/via).

A ``rect`` is a box, ``polygon``, ``circle`` and ``ellipse`` are masks with their box; ``point``, ``polyline`` and
``line`` are counted and not used. The class is the region attribute that all regions have: the only one, or one with a
name such as ``class``, ``label`` or ``type``. Regions without any attribute are of the class ``object``.
"""

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..structures import DataError
from .coco import CocoFile, Place
from .json_files import parse_json, read_file, read_json, read_start
from .label_shapes import Shape
from .label_values import ShapeError, as_dict, as_float, as_list, file_problem, find_image, take_numbers
from .labels import LabelCollector, LabelFormat, LabelRequest, image_root
from .outlines import ellipse_outline

UNUSED_SHAPES = ("point", "polyline", "line")
CLASS_ATTRIBUTES = ("class", "label", "name", "type", "category", "class_name", "object")
"""Names of the attribute with the class, if regions have several; the first that occurs is used."""
UNNAMED = "object"
CSV_COLUMNS = {"filename", "region_shape_attributes", "region_attributes"}


def _recognize(path: Path) -> bool:
    if not path.is_file():
        return False
    start = read_start(path).lstrip()
    if path.suffix.lower() == ".csv":
        return {name.strip('"# ') for name in start.partition("\n")[0].strip().split(",")} >= CSV_COLUMNS
    return path.suffix.lower() == ".json" and ('"_via_' in start or ('"regions"' in start and '"filename"' in start))


@dataclass(frozen=True, slots=True)
class _Region:
    """A region of an image."""

    file_name: str
    place: Place
    shape: Any
    attributes: Any


def _read(request: LabelRequest) -> CocoFile:
    root = image_root(request)
    file_names, regions = _read_csv(request.path) if request.path.suffix == ".csv" else _read_project(request.path)
    collector = LabelCollector(root, extra_names=request.class_names)
    images = {name: collector.add_image(find_image([name], [root], root), request.path) for name in file_names}
    attribute = _class_attribute(regions, request.path)
    for region in regions:
        image = images[region.file_name]
        try:
            shape = _as_shape(region.shape)
            label = _class_name(region.attributes, attribute)
        except ShapeError as error:
            collector.refuse_object(image, region.place, "bad-shape", str(error))
            continue
        if shape is None:
            collector.skip_object("point-or-line", region.place)
        else:
            collector.add_object(image, label, region.place, shape)
    return collector.finish()


def _read_project(path: Path) -> tuple[list[str], list[_Region]]:
    """Return the names of the images and the regions of a project or of exported annotations."""
    content = read_json(path)
    entries = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if isinstance(content, dict) and "project" in content and "metadata" in content:
        raise file_problem("this is a project of VIA 3", path, "VIA 2")
    if not isinstance(entries, dict):
        raise file_problem("there are no images with regions", path, "VIA 2")
    names: dict[str, None] = {}
    regions: list[_Region] = []
    for key, entry in entries.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
            raise file_problem(f"the entry {key!r:.80} has no filename", path, "VIA 2")
        names[entry["filename"]] = None
        found = entry.get("regions")
        for number, region in enumerate(found.values() if isinstance(found, dict) else as_list(found), start=1):
            fields = as_dict(region)
            place = Place(os.fspath(path), f"{entry['filename']} region {number}")
            regions.append(
                _Region(entry["filename"], place, fields.get("shape_attributes"), fields.get("region_attributes"))
            )
    return list(names), regions


def _read_csv(path: Path) -> tuple[list[str], list[_Region]]:
    """Return the names of the images and the regions of annotations exported as CSV."""
    names: dict[str, None] = {}
    regions: list[_Region] = []
    for line, row in _csv_rows(path):
        name = row.get("filename") or row.get("#filename") or ""
        names[name] = None
        values: list[Any] = []
        for column in ("region_shape_attributes", "region_attributes"):
            try:
                values.append(parse_json((row.get(column) or "{}").encode(), path))
            except DataError:
                values.append(None)
        if values[0] != {}:
            regions.append(_Region(name, Place(os.fspath(path), f"line {line}"), values[0], values[1]))
    return list(names), regions


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield (line number, columns by name) of a CSV file; raise DataError if it cannot be read."""
    try:
        reader = csv.DictReader(io.StringIO(read_file(path).decode("utf-8-sig")), strict=True)
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if isinstance(key, str)}
    except (csv.Error, UnicodeDecodeError) as error:
        raise file_problem(f"not a CSV file: {error}", path, "VIA 2", "bad-csv") from None


def _class_attribute(regions: list[_Region], path: Path) -> str | None:
    """Return the name of the attribute with the class; None if no region has attributes."""
    names = {name for region in regions if isinstance(region.attributes, dict) for name in region.attributes}
    if len(names) <= 1:
        return next(iter(names), None)
    for wanted in CLASS_ATTRIBUTES:
        if found := [name for name in sorted(names) if name.lower() == wanted]:
            return found[0]
    raise DataError(
        f"the regions have the attributes {', '.join(sorted(names))}: which one is the class?",
        f"rename it to {CLASS_ATTRIBUTES[0]}", case="bad-labels", file=path,
    )  # fmt: skip


def _class_name(attributes: Any, attribute: str | None) -> str:
    """Return the class of a region: the text of an attribute, or its only checked option."""
    if attribute is None:
        return UNNAMED
    value = attributes.get(attribute) if isinstance(attributes, dict) else None
    if isinstance(value, dict):
        checked = [name for name, is_checked in value.items() if is_checked is True]
        value = checked[0] if len(checked) == 1 else None
    if not isinstance(value, str) or not value.strip():
        raise ShapeError(f"has no {attribute!r}, which is the class of the others")
    return value.strip()


def _as_shape(fields: Any) -> Shape | None:
    """Return the shape of a region; None if it is a point or a line."""
    name = fields.get("name") if isinstance(fields, dict) else None
    if name in UNUSED_SHAPES:
        return None
    if name == "rect":
        x, y, width, height = take_numbers(fields, ("x", "y", "width", "height"))
        return Shape((x, y, x + width, y + height))
    if name == "polygon":
        xs, ys = fields.get("all_points_x"), fields.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys) or len(xs) < 3:
            raise ShapeError(f"has the points {xs!r:.40} and {ys!r:.40}, where at least three pairs are needed")
        return Shape(polygons=[[as_float(v, "coordinate") for pair in zip(xs, ys, strict=True) for v in pair]])
    if name == "circle":
        x, y, radius = take_numbers(fields, ("cx", "cy", "r"))
        return Shape((x - radius, y - radius, x + radius, y + radius), [ellipse_outline(x, y, radius, radius)])
    if name == "ellipse":
        x, y, radius_x, radius_y = take_numbers(fields, ("cx", "cy", "rx", "ry"))
        theta = as_float(fields.get("theta", 0), "theta")
        return Shape(polygons=[ellipse_outline(x, y, radius_x, radius_y, math.degrees(theta))])
    raise ShapeError(f"has the shape {fields!r:.80}, which is not one of VIA's")


VIA = LabelFormat(
    name="via",
    title="a VIA file",
    expected="a VIA file (.json or .csv with regions)",
    recognize=_recognize,
    read=_read,
)
