"""YOLO data sets: a text file per image, with a line per object in fractions of the image's width and height.

| line | object |
|---|---|
| ``class x y width height`` | a box, given by its center |
| ``class x1 y1 x2 y2 x3 y3 ...`` | a polygon, whose box encloses it |
| ``class x y width height kx ky [visibility] ...`` | a box with keypoints, if ``data.yaml`` has ``kpt_shape`` |

``data.yaml`` names the classes and the folders, or lists, of the images of each split (docs.ultralytics.com/datasets).
Without it the classes are the lines of ``classes.txt`` or ``obj.names`` (Darknet). The labels of
``images/train/a.jpg`` are in ``labels/train/a.txt``, or else in ``a.txt`` beside the image. An image without labels is
background.
"""

import itertools
import os
from pathlib import Path

from ..structures import DataError
from .coco import CocoFile, Place
from .json_files import read_file
from .label_shapes import Shape
from .labels import LabelCollector, LabelFormat, LabelRequest, files_below
from .yolo_layout import CLASS_FILES, YoloLayout, find_yaml

LOOKED_AT = 100
"""The number of text files that are looked at to recognize a folder."""
DIGITS = 6
"""Points are rounded to this number of digits of a pixel: COCO's rasterizer rounds to 1/5 pixel, and without it a point
such as 10.1 would come back as 10.0999999 and be rounded to another pixel."""
ROUNDING = 0.01
"""How far a coordinate may be outside 0 to 1; recent versions of ultralytics accept as much, earlier ones nothing."""


def recognize(path: Path) -> bool:
    """Return whether a path is a data.yaml, a folder that holds one, or a folder of images with text files."""
    if path.is_file():
        return path.suffix.lower() in (".yaml", ".yml")
    if not path.is_dir():
        return False
    if find_yaml(path) is not None:
        return True
    if not any((path / name).is_file() for name in CLASS_FILES):
        return False
    if YoloLayout.of(path).splits():
        return any((path / folder).is_dir() for folder in ("labels", "obj_train_data", "obj_val_data", "train"))
    texts = (file for file in files_below(path) if file.suffix == ".txt" and file.name not in CLASS_FILES)
    return any(_is_label_file(file) for file in itertools.islice(texts, LOOKED_AT))


def _is_label_file(file: Path) -> bool:
    """Return whether the first line of a file has at least five numbers."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            values = [float(word) for word in lines.readline(10_000).split()]
    except (OSError, ValueError):
        return False
    return len(values) >= 5


def list_splits(path: Path) -> tuple[str, ...]:
    """Return the splits that data.yaml names or, without it, those that have a folder."""
    return YoloLayout.of(path).splits()


def list_folders(request: LabelRequest) -> list[Path]:
    """Return data.yaml and the root of the data set."""
    layout = YoloLayout.of(request.path)
    return [*([layout.file] if layout.file is not None else []), layout.root]


def read(request: LabelRequest) -> CocoFile:
    """Read the labels of a split, or of all splits."""
    layout = YoloLayout.of(request.path)
    collector = LabelCollector(layout.root, layout.class_names(), first_id=0)
    keypoints = layout.keypoint_shape()
    if keypoints is not None:
        collector.declare_keypoints(layout.keypoint_names(keypoints[0]))
    for image in layout.list_images(request.split):
        _read_labels(collector, layout.root / image, image, keypoints)
    return collector.finish()


def label_file(image: Path) -> Path:
    """Return the file of an image's labels: the last folder ``images`` of its path is replaced by ``labels``."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :]).with_suffix(".txt")
    return image.with_suffix(".txt")


def _read_labels(collector: LabelCollector, path: Path, name: str, keypoints: tuple[int, int] | None) -> None:
    """Add an image and the objects in its text file."""
    file = label_file(path)
    if not file.is_file():
        file = path.with_suffix(".txt")
    if not file.is_file():
        collector.add_image(name, file)
        collector.note("image-without-labels", name)
        return
    try:
        lines = read_file(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        what = f"not valid UTF-8 at byte {error.start}"
        collector.refuse_image(name, DataError(what, "write it again", case="bad-labels", file=file, image_id=name))
        return
    image = collector.add_image(name, file)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            _read_line(collector, image, Place(os.fspath(file), f"line {number}"), line.split(), keypoints)


def _read_line(
    collector: LabelCollector, image: int, place: Place, words: list[str], keypoints: tuple[int, int] | None
) -> None:
    """Add the object of one line, or the reason why it cannot be used."""
    try:
        label, *values = map(float, words)
    except ValueError:
        collector.refuse_object(image, place, "bad-line", f"is not a line of numbers: {' '.join(words)!r:.80}")
        return
    names = collector.class_names or ()
    if label not in range(len(names)):
        what = f"has the class {words[0]:.20}, but the names have {len(names)} classes, 0 to {len(names) - 1}"
        collector.refuse_object(image, place, "unknown-category", what)
        return
    expected = None if keypoints is None else 4 + keypoints[0] * keypoints[1]
    if len(values) not in (4, expected) and (len(values) < 6 or len(values) % 2 or keypoints is not None):
        what = f"has {len(words)} numbers, which are neither a box (5) nor a polygon (an odd number from 7)"
        if keypoints is not None:
            what = f"has {len(words)} numbers, which are neither a box (5) nor one with keypoints (1 + {expected})"
        collector.refuse_object(image, place, "bad-line", what)
        return
    coordinates = values[:4] + [v for i, v in enumerate(values[4:]) if keypoints is None or i % keypoints[1] < 2]
    if not all(-ROUNDING <= value <= 1 + ROUNDING for value in coordinates):
        what = f"has a coordinate outside 0 to 1, which are fractions of the image's size: {' '.join(words)!r:.80}"
        collector.refuse_object(image, place, "not-normalized", what)
        return
    shape = _shape(values, collector.size(image), keypoints)
    collector.add_object(image, int(label), place, shape)


def _shape(values: list[float], size: tuple[int, int], keypoints: tuple[int, int] | None) -> Shape:
    """Return the shape of a line's values in pixels."""
    height, width = size
    if len(values) != 4 and keypoints is None:
        pixels = [value * (height if index % 2 else width) for index, value in enumerate(values)]
        return Shape(polygons=[[round(value, DIGITS) for value in pixels]])
    x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
    box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    if len(values) == 4 or keypoints is None:
        return Shape(box)
    points: list[float] = []
    for start in range(4, len(values), keypoints[1]):
        px, py = values[start] * width, values[start + 1] * height
        visibility = values[start + 2] if keypoints[1] == 3 else (2.0 if px or py else 0.0)
        points += [px - 0.5, py - 0.5, visibility]  # COCO's keypoints are indices of pixels
    return Shape(box, keypoints=points)


YOLO = LabelFormat(
    name="yolo",
    title="a YOLO data set",
    expected="a YOLO data set (data.yaml, or images and .txt labels with classes.txt)",
    recognize=recognize,
    read=read,
    list_splits=list_splits,
    list_folders=list_folders,
    find_root=lambda request: YoloLayout.of(request.path).root,
    takes_images=False,
)
