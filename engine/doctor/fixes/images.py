"""Corrections of the entries of images: files that cannot be read, and sizes that are not those of the files."""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from ....formats.checks import as_id, is_text
from ....formats.image_headers import plain_image_size
from ....formats.images import check_image, read_image
from ....formats.pillow import open_image
from ....structures import DataError
from ..pixels import ORIENTATION
from .document import Document, Entry, is_box

SAME_SHAPE = 0.02
"""An image was resized if its ratio of width to height differs from the declared one by no more than this fraction."""
SLACK = 1.0
"""The number of pixels by which a box may leave an image in which it was drawn."""

Move = Callable[[float, float], tuple[float, float]]


def correct_images(document: Document) -> None:
    """Remove images that cannot be read, and correct declared sizes, with the annotations made for them."""
    document.keep(
        "images", lambda entry: as_id(entry.get("id")) is not None and is_text(entry.get("file_name")), "bad-image"
    )
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        list(pool.map(lambda entry: _read(document, entry["id"]), document.images))
    document.keep("images", lambda entry: entry["id"] in document.sizes, "unreadable-image")
    by_image: dict[int | str, list[Entry]] = {}
    for annotation in document.annotations:
        by_image.setdefault(as_id(annotation.get("image_id")) or "", []).append(annotation)
    refused = {
        image["id"] for image in document.images if not _correct_size(document, image, by_image.get(image["id"], []))
    }
    document.keep("images", lambda entry: entry["id"] not in refused, "wrong-size")


def _read(document: Document, image_id: int | str) -> None:
    """Store the size and the hash of an image file if it can be decoded."""
    path = document.files.get(image_id)
    if path is None:
        return
    try:
        check_image(path, None, image_id)
        height, width = read_image(path, image_id).shape[:2]
        document.digests[image_id] = hashlib.sha256(path.read_bytes()).digest()
    except (DataError, OSError):
        return
    document.sizes[image_id] = (height, width)


def _correct_size(document: Document, image: Entry, annotations: list[Entry]) -> bool:
    """Set the size of an image to that of its file; return False if its annotations fit neither."""
    actual = document.sizes[image["id"]]
    declared = (image.get("height"), image.get("width"))
    if declared == actual:
        return True
    if not all(isinstance(side, int) and side > 0 for side in declared):
        _set_size(document, image, "size-from-file", actual)
        return True
    height, width = int(declared[0] or 1), int(declared[1] or 1)
    move = _turn_of(document, image["id"], (height, width))
    case = "turned-by-exif"
    if move is None and abs(actual[1] * height / (actual[0] * width) - 1) <= SAME_SHAPE and _fit(annotations, declared):
        horizontal, vertical = actual[1] / width, actual[0] / height
        move, case = lambda x, y: (round(x * horizontal, 4), round(y * vertical, 4)), "resized-image"
    elif move is None and not _fit(annotations, actual):
        return False
    _set_size(document, image, "wrong-size", actual)
    if move is not None:
        for annotation in annotations:
            _move(document, annotation, move, case)
    return True


def _set_size(document: Document, image: Entry, case: str, size: tuple[int, int]) -> None:
    document.set(case, image, "height", size[0])
    document.set(case, image, "width", size[1])


def _fit(annotations: Iterable[Entry], size: tuple) -> bool:
    """Return whether all boxes lie in an image of ``size`` (height, width)."""
    boxes = [annotation["bbox"] for annotation in annotations if is_box(annotation.get("bbox"))]
    height, width = size
    return all(
        x >= -SLACK and y >= -SLACK and x + w <= width + SLACK and y + h <= height + SLACK for x, y, w, h in boxes
    )


def _turn_of(document: Document, image_id: int | str, declared: tuple[int, int]) -> Move | None:
    """Return how points move when an image of the ``declared`` (height, width) is turned upright by EXIF.

    None if the image is not turned by a quarter, or is declared upright.
    """
    path = document.files[image_id]
    if plain_image_size(path) is not None:
        return None
    with open_image(path) as image:
        orientation, stored = image.getexif().get(ORIENTATION, 1), (image.height, image.width)
    height, width = declared
    turns: dict[int, Move] = {
        5: lambda x, y: (y, x),
        6: lambda x, y: (height - y, x),
        7: lambda x, y: (height - y, width - x),
        8: lambda x, y: (y, width - x),
    }
    return turns.get(orientation) if stored == declared else None


def _move(document: Document, annotation: Entry, move: Move, case: str) -> None:
    """Move the box and the polygons of an annotation; a mask as run lengths is left to the check of masks."""
    box, polygons = annotation.get("bbox"), annotation.get("segmentation")
    if is_box(box):
        x, y, width, height = annotation["bbox"]
        (x1, y1), (x2, y2) = move(x, y), move(x + width, y + height)
        document.set(case, annotation, "bbox", [min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)])
    if isinstance(polygons, list) and all(isinstance(polygon, list) for polygon in polygons):
        moved = [
            [value for x, y in zip(polygon[::2], polygon[1::2], strict=False) for value in move(x, y)]
            for polygon in polygons
        ]
        document.set(case, annotation, "segmentation", moved)
    if "area" in annotation:
        annotation.pop("area")  # computed again at the end
