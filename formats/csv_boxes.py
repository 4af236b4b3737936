"""Boxes in a CSV file with a line per object: ``path,x1,y1,x2,y2,class`` (github.com/fizyr/keras-retinanet).

A first line with the names of the columns may give another order, and other names, as TensorFlow's tutorials use them
(``filename,width,height,class,xmin,ymin,xmax,ymax``). A line with a path alone (``path,,,,,``) is an image without
objects. Corners are continuous pixels from 0.
"""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

from .coco import CocoFile, Place
from .json_files import read_file, read_start
from .label_shapes import Shape
from .label_values import ShapeError, as_float, file_problem, find_image
from .labels import LabelCollector, LabelFormat, LabelRequest, image_root

COLUMNS = ("path", "x1", "y1", "x2", "y2", "class")
ALIASES = {
    "path": "path", "filename": "path", "file_name": "path", "file": "path", "image": "path", "img_path": "path",
    "image_path": "path", "image_name": "path", "image_id": "path",
    "x1": "x1", "xmin": "x1", "x_min": "x1", "y1": "y1", "ymin": "y1", "y_min": "y1",
    "x2": "x2", "xmax": "x2", "x_max": "x2", "y2": "y2", "ymax": "y2", "y_max": "y2",
    "class": "class", "class_name": "class", "label": "class", "category": "class", "name": "class",
}  # fmt: skip
"""The column that each name of a column stands for."""
SIDES = ("x1", "y1", "x2", "y2")


def _recognize(path: Path) -> bool:
    if not path.is_file() or path.suffix.lower() != ".csv":
        return False
    try:
        row = next(csv.reader([read_start(path).partition("\n")[0]]), [])
    except csv.Error:
        return False
    return _is_header(row) or (len(row) == len(COLUMNS) and _are_numbers(row[1:5]))


def _is_header(row: list[str]) -> bool:
    return {ALIASES.get(word.strip().lower()) for word in row} >= set(COLUMNS)


def _are_numbers(words: list[str]) -> bool:
    try:
        return all(not word.strip() or float(word) == float(word) for word in words)
    except ValueError:
        return False


def _read(request: LabelRequest) -> CocoFile:
    root = image_root(request)
    collector = LabelCollector(root, extra_names=request.class_names)
    order = {name: index for index, name in enumerate(COLUMNS)}
    for line, row in _rows(request.path):
        if line == 1 and _is_header(row):
            named = [ALIASES.get(word.strip().lower()) for word in row]
            order = {name: named.index(name) for name in COLUMNS}
            continue
        if not any(word.strip() for word in row):
            continue
        values = {name: row[index].strip() if index < len(row) else "" for name, index in order.items()}
        if not values["path"]:
            raise file_problem(
                f"line {line} has no path of an image", request.path, "a tool for this format", "bad-csv"
            )
        image = collector.add_image(find_image([values["path"]], [root], root), request.path)
        place = Place(os.fspath(request.path), f"line {line}")
        if not any(values[name] for name in COLUMNS[1:]):
            continue
        try:
            x1, y1, x2, y2 = (as_float(values[name], name) for name in SIDES)
        except ShapeError as error:
            collector.refuse_object(image, place, "malformed-box", str(error))
            continue
        if not values["class"]:
            collector.refuse_object(image, place, "no-name", "has no class")
        else:
            collector.add_object(image, values["class"], place, Shape((x1, y1, x2, y2)))
    return collector.finish()


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, columns); raise DataError if the file is not CSV."""
    try:
        reader = csv.reader(io.StringIO(read_file(path).decode("utf-8-sig"), newline=""), strict=True)
        for row in reader:
            yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise file_problem(f"not a CSV file: {error}", path, "a tool for this format", "bad-csv") from None


CSV = LabelFormat(
    name="csv",
    title="a CSV file of boxes",
    expected="a CSV file of boxes (path,x1,y1,x2,y2,class)",
    recognize=_recognize,
    read=_read,
)
