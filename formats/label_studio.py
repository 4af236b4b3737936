"""Label Studio: tasks with their results, exported as JSON or JSON-MIN (labelstud.io/guide/export).

Coordinates are percentages of the image's width and height, and ``rotation`` turns a box clockwise around its top left
corner. ``rectanglelabels``, ``ellipselabels`` and ``polygonlabels`` are objects; brush masks, keypoints and others are
counted and not used: export them as COCO. Images are looked for by the last part of their URL, with and without the
prefix that Label Studio adds to uploaded files (``1a2b3c4d-NAME``).
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .coco import CocoFile, Place
from .json_files import read_json, read_start
from .label_shapes import Shape
from .label_values import ShapeError, as_list, as_points, as_size, file_problem, find_image, take_numbers
from .labels import LabelCollector, LabelFormat, LabelRequest, image_root
from .outlines import ellipse_outline, rectangle_outline

LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels")
"""The fields with the class, in the results that are objects."""
OTHER_LABELS = ("brushlabels", "keypointlabels", "videorectangle", "format")
IMAGE_FIELDS = ("image", "img", "image_url", "url", "ocr", "photo")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}(-|__)(?=.)")

Result = Mapping[str, Any]


def _recognize(path: Path) -> bool:
    if not path.is_file() or path.suffix.lower() != ".json":
        return False
    start = read_start(path).lstrip()
    return start.startswith("[") and any(f'"{name}"' in start for name in (*LABELS, *OTHER_LABELS, "annotations"))


def _read(request: LabelRequest) -> CocoFile:
    root, path = image_root(request), request.path
    tasks = read_json(path)
    if not isinstance(tasks, list):
        raise file_problem("expected a list of tasks at the top", path, "Label Studio")
    collector = LabelCollector(root, extra_names=request.class_names)
    for number, task in enumerate(tasks, start=1):
        fields = task.get("data", task) if isinstance(task, dict) else None
        url = _image_url(fields) if isinstance(fields, dict) else None
        if url is None:
            raise file_problem(f"task {number} has no image", path, "Label Studio")
        results = list(_results(task))
        size = next((size for result in results if (size := _size(result)) is not None), None)
        folders = [root, root / "images"]
        image = collector.add_image(find_image(_file_names(url), folders, root), path, size)
        for index, result in enumerate(results, start=1):
            _add_result(collector, image, Place(os.fspath(path), f"task {number} result {index}"), result)
    return collector.finish()


def _image_url(fields: Mapping[str, Any]) -> str | None:
    """Return the URL of a task's image: that of the usual field, else the first text that names an image file."""
    texts = [fields[name] for name in IMAGE_FIELDS if isinstance(fields.get(name), str)]
    texts += [value for value in fields.values() if isinstance(value, str) and "/" in value and "." in value]
    return next((text for text in texts if text), None)


def _file_names(url: str) -> list[str]:
    """Return the names under which the image of a URL may be stored."""
    try:
        parts = urlsplit(url)
        local = parse_qs(parts.query).get("d", []) if parts.path.endswith("/data/local-files/") else []
    except ValueError:  # such as an invalid IPv6 address
        return [url]
    name = unquote(local[0] if local else parts.path).lstrip("/")
    last = name.rpartition("/")[2]
    return [name, last, _UPLOAD_PREFIX.sub("", last)]


def _results(task: Mapping[str, Any]) -> Iterator[Result]:
    """Yield the results of a task: those of its annotation that was not cancelled, or in JSON-MIN of its fields."""
    annotations = task.get("annotations", task.get("completions"))
    if isinstance(annotations, list):
        kept = [entry for entry in annotations if isinstance(entry, dict) and not entry.get("was_cancelled")]
        for result in as_list(kept[0].get("result")) if kept else []:
            if isinstance(result, dict) and isinstance(value := result.get("value"), dict):
                yield {**value, **{name: result.get(name) for name in ("original_width", "original_height")}}
        return
    for value in task.values():
        if isinstance(value, list):
            yield from (item for item in value if isinstance(item, dict))


def _size(result: Result) -> tuple[int, int] | None:
    return as_size(result.get("original_height"), result.get("original_width"))


def _add_result(collector: LabelCollector, image: int, place: Place, result: Result) -> None:
    """Add the object of a result, or the reason why it cannot be used."""
    field = next((name for name in LABELS if name in result), None)
    if field is None:
        collector.skip_object("other-result", place)
        return
    try:
        names = result[field]
        if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
            raise ShapeError(f"has the {field} {names!r:.80}, where one class is needed")
        shape = _as_shape(field, result, collector.size(image))
    except ShapeError as error:
        collector.refuse_object(image, place, "bad-shape", str(error))
        return
    collector.add_object(image, names[0], place, shape)


def _as_shape(field: str, result: Result, size: tuple[int, int]) -> Shape:
    """Return the shape of a result in pixels."""
    height, width = size
    if field == "polygonlabels":
        points = as_points(result.get("points"), 3)
        return Shape(polygons=[[value * (height if index % 2 else width) / 100 for index, value in enumerate(points)]])
    degrees = take_numbers({"rotation": 0, **result}, ("rotation",))[0]
    if field == "ellipselabels":
        x, y, radius_x, radius_y = take_numbers(result, ("x", "y", "radiusX", "radiusY"))
        radii = (radius_x * width / 100, radius_y * height / 100)
        return Shape(polygons=[ellipse_outline(x * width / 100, y * height / 100, *radii, degrees)])
    x, y, w, h = take_numbers(result, ("x", "y", "width", "height"))
    left, top, right, bottom = x * width / 100, y * height / 100, (x + w) * width / 100, (y + h) * height / 100
    if not degrees:
        return Shape((left, top, right, bottom))
    return Shape(polygons=[rectangle_outline(left, top, right, bottom, degrees, pivot=(left, top))])


LABEL_STUDIO = LabelFormat(
    name="label_studio",
    title="a Label Studio file",
    expected="a Label Studio file (.json, a list of tasks)",
    recognize=_recognize,
    read=_read,
)
