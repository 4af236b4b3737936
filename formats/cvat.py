"""CVAT for images 1.1: one XML file with the boxes, polygons and masks of all images (docs.cvat.ai, "CVAT for image").

| element | object |
|---|---|
| ``box``, ``ellipse`` | a box; if it is turned by ``rotation`` degrees, its outline and the enclosing box |
| ``polygon`` | a polygon and its box |
| ``mask`` | a bitmap, given by the runs of 0 and 1 along the rows of its box |
| ``polyline``, ``points``, ``cuboid``, ``skeleton`` | counted, not used |

Whether an object is ``occluded`` and its ``z_order`` are not used; one that is ``outside`` is left out and counted.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ..structures import MAX_PIXELS
from .coco import CocoFile, Place
from .json_files import read_start
from .label_shapes import Shape, paste
from .label_values import ShapeError, as_float, file_problem, find_image
from .labels import LabelCollector, LabelFormat, LabelRequest, image_root
from .outlines import ellipse_outline, rectangle_outline
from .xml_files import parse_xml

UNUSED_SHAPES = ("polyline", "points", "cuboid", "skeleton")
CORNERS = ("xtl", "ytl", "xbr", "ybr")


def _recognize(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".xml" and "<annotations" in read_start(path)


def _root(request: LabelRequest) -> Path:
    """Return the folder of the images: ``images`` beside the file, where CVAT exports them, or the file's own."""
    beside = request.path.parent / "images"
    return beside if request.images is None and beside.is_dir() else image_root(request)


def _read(request: LabelRequest) -> CocoFile:
    root, path = _root(request), request.path
    document = parse_xml(path, "annotations", "give a file that CVAT exported as CVAT for images 1.1")
    if document.find("track") is not None:
        raise file_problem("this is CVAT for video: objects are tracks", path, "CVAT as CVAT for images 1.1")
    declared = [name.strip() for label in document.iter("label") if (name := label.findtext("name", ""))]
    collector = LabelCollector(root, list(dict.fromkeys(declared)) or None, extra_names=request.class_names)
    for number, element in enumerate(document.findall("image"), start=1):
        name = element.get("name", "")
        if not name:
            raise file_problem(f"image {number} has no name", path, "CVAT")
        image = collector.add_image(find_image([name], [root], root), path, _size(element))
        for index, shape in enumerate(element, start=1):
            _add_shape(collector, image, Place(os.fspath(path), f"{name} object {index}"), shape)
    return collector.finish()


def _size(element: Element) -> tuple[int, int] | None:
    texts = (element.get("height", ""), element.get("width", ""))
    if all(text.isdecimal() and 0 < len(text) < 10 and int(text) > 0 for text in texts):
        return int(texts[0]), int(texts[1])
    return None


def _add_shape(collector: LabelCollector, image: int, place: Place, element: Element) -> None:
    """Add the object of an element, or the reason why it cannot be used."""
    label = element.get("label", "").strip()
    if element.tag == "tag":
        collector.note("tag-of-image", str(place))
    elif element.get("outside") == "1":
        collector.skip_object("outside", place)
    elif element.tag in UNUSED_SHAPES:
        collector.skip_object("point-or-line", place)
    elif element.tag not in _READERS or not label:
        what = f"is a <{element.tag:.40}> " + (
            "without a label" if element.tag in _READERS else "which CVAT does not write"
        )
        collector.refuse_object(image, place, "bad-shape", what)
    else:
        try:
            shape = _READERS[element.tag](element, collector.size(image))
        except ShapeError as error:
            collector.refuse_object(image, place, "bad-shape", str(error))
        else:
            collector.add_object(image, label, place, shape)


def _numbers(element: Element, names: Sequence[str]) -> list[float]:
    return [as_float(element.get(name), name) for name in names]


def _box(element: Element, size: tuple[int, int]) -> Shape:
    x1, y1, x2, y2 = _numbers(element, CORNERS)
    degrees = as_float(element.get("rotation", "0"), "rotation")
    return Shape(polygons=[rectangle_outline(x1, y1, x2, y2, degrees)]) if degrees else Shape((x1, y1, x2, y2))


def _ellipse(element: Element, size: tuple[int, int]) -> Shape:
    x, y, radius_x, radius_y = _numbers(element, ("cx", "cy", "rx", "ry"))
    degrees = as_float(element.get("rotation", "0"), "rotation")
    return Shape(polygons=[ellipse_outline(x, y, radius_x, radius_y, degrees)])


def _polygon(element: Element, size: tuple[int, int]) -> Shape:
    pairs = [pair.split(",") for pair in element.get("points", "").split(";") if pair.strip()]
    if len(pairs) < 3 or not all(len(pair) == 2 for pair in pairs):
        raise ShapeError(f"has the points {element.get('points', '')!r:.80}, where at least three pairs are needed")
    return Shape(polygons=[[as_float(value.strip(), "coordinate") for pair in pairs for value in pair]])


def _mask(element: Element, size: tuple[int, int]) -> Shape:
    x, y, width, height = (int(value) for value in _numbers(element, ("left", "top", "width", "height")))
    try:
        runs = np.array([int(word) for word in element.get("rle", "").split(",")], np.int64)
    except (ValueError, OverflowError):
        raise ShapeError(f"has the rle {element.get('rle', '')!r:.80}, which is not a list of whole numbers") from None
    if not 0 < width * height <= MAX_PIXELS or (runs < 0).any() or runs.max() > MAX_PIXELS:
        raise ShapeError(f"has a mask of {height}x{width} pixels, or runs that are not lengths")
    if runs.sum() != width * height:
        raise ShapeError(f"has an rle of {runs.sum()} pixels, but its box has {height}x{width}")
    part = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return Shape.of_bitmap(paste(part, x, y, size))


_READERS: dict[str, Callable[[Element, tuple[int, int]], Shape]] = {
    "box": _box, "ellipse": _ellipse, "polygon": _polygon, "mask": _mask,
}  # fmt: skip

CVAT = LabelFormat(
    name="cvat",
    title="a CVAT file",
    expected="a CVAT file (annotations.xml, CVAT for images 1.1)",
    recognize=_recognize,
    read=_read,
    find_root=_root,
)
