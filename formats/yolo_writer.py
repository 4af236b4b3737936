"""Writing of a data set in YOLO's layout: ``images/SPLIT/NAME``, ``labels/SPLIT/STEM.txt`` and ``data.yaml``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .converted import ConvertedData, ConvertedImage, corners
from .json_files import write_text
from .mask_polygons import mask_to_polygons
from .rle import decode_mask, encode_segmentation

BOX_TOLERANCE = 1e-2
"""Pixels: a box that is further than this from that of its polygon is counted, since a polygon line has no box."""


def yolo_image_path(split: str, name: str) -> str:
    """Return where an image is in the folder of the data set."""
    return f"images/{split}/{name}"


def write_yolo(folder: Path, data: ConvertedData) -> None:
    """Write the labels and data.yaml: polygons if every object has a mask, otherwise boxes.

    Crowds, which YOLO cannot hold, masks beside boxes, and keypoints are counted as lost.
    """
    objects = [entry for entry in data.all_objects() if not entry.get("iscrowd")]
    polygons = bool(objects) and all(entry.get("segmentation") for entry in objects)
    labels = data.labels()
    for split, images in data.splits.items():
        (folder / "labels" / split).mkdir(parents=True)
        for image in images:
            lines = [_line(entry, image, labels, polygons, data) for entry in image.objects]
            text = "".join(f"{line}\n" for line in lines if line)
            write_text(folder / "labels" / split / f"{Path(image.name).stem}.txt", text)
    names = {label: category["name"] for label, category in enumerate(data.categories)}
    content = {"path": ".", **{split: f"images/{split}" for split in data.splits}, "names": names}
    write_text(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _line(
    entry: Mapping[str, Any], image: ConvertedImage, labels: Mapping[int, int], polygons: bool, data: ConvertedData
) -> str:
    """Return the line of an object; empty for a crowd."""
    if entry.get("iscrowd"):
        data.lost["crowd or difficult object left out"] += 1
        return ""
    data.lost["keypoints left out"] += bool(entry.get("keypoints"))
    height, width = image.size
    x1, y1, x2, y2 = corners(entry)
    if not polygons:
        data.lost["mask left out, since not all objects have one"] += bool(entry.get("segmentation"))
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    else:
        points = _outline(entry["segmentation"], image.size)
        if not points:
            data.lost["object with an empty mask left out"] += 1
            return ""
        box = (min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2]))
        away = max(abs(a - b) for a, b in zip(box, (x1, y1, x2, y2), strict=True))
        data.lost["box replaced by that of the mask"] += away > BOX_TOLERANCE
        values = [value / (height if index % 2 else width) for index, value in enumerate(points)]
    low, high = min(values), max(values)
    if low < 0 or high > 1:
        data.lost["coordinate outside the image clipped"] += 1
        values = _clipped(values, polygons)
    return " ".join([str(labels[entry["category_id"]]), *(f"{value:.12g}" for value in values)])


def _clipped(values: list[float], polygons: bool) -> list[float]:
    """Return the values of a line clipped to the image."""
    if polygons:
        return [min(max(value, 0.0), 1.0) for value in values]
    x, y, width, height = values
    left, top = max(x - width / 2, 0.0), max(y - height / 2, 0.0)
    right, bottom = min(x + width / 2, 1.0), min(y + height / 2, 1.0)
    return [(left + right) / 2, (top + bottom) / 2, max(right - left, 0.0), max(bottom - top, 0.0)]


def _outline(segmentation: Any, size: tuple[int, int]) -> list[float]:
    """Return a mask as one polygon x1, y1, x2, y2, ...; empty if it covers no pixel.

    The parts of a mask are connected by lines that are walked in both directions, which COCO's rasterizer cancels.
    """
    if isinstance(segmentation, list) and len(segmentation) == 1:
        return [float(value) for value in segmentation[0]]
    bitmap = np.ascontiguousarray(decode_mask(encode_segmentation(segmentation, size))).astype(bool)
    parts = mask_to_polygons(bitmap)
    if not parts:
        return []
    points = list(parts[0])
    if len(parts) > 1:
        first = parts[0][:2]
        points += first
        for part in parts[1:]:
            points += [*part, *part[:2], *first]
    return [float(value) for value in points]
