"""COCO's panoptic format: a JSON file with the segments of each image, and a PNG file per image with their pixels.

The color of a pixel encodes the id of its segment as R + 256 G + 65536 B; 0 is void. An entry of ``annotations`` has
the ``image_id``, the ``file_name`` of the PNG file and ``segments_info``: for each segment its ``id``, ``category_id``,
``iscrowd``, ``area`` (pixels) and ``bbox`` (x, y, width, height).
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8
from numpy import ndarray
from PIL import Image

from ..structures import VOID, DataError
from .checks import KnownIds, Problem, area_problem, as_id, box_problem, crowd_problem, id_problem, is_text
from .class_maps import check_png_header
from .json_files import write_text
from .pillow import image_errors_as_data_errors, open_image

MAX_SEGMENT_ID = 2**24 - 1
"""The largest segment id that fits in the three bytes of a color."""
_RGB = 2
"""PNG's color type for red, green and blue without transparency."""
_WEIGHTS = np.array([1, 2**8, 2**16], np.int32)


def annotation_problem(entry: Any, category_ids: KnownIds) -> tuple[Problem, int | str | None] | None:
    """Check an entry of ``annotations``, except its image id and the pixels of its segments.

    Returns None if it is valid, and otherwise the problem and the id of its segment (None: a problem of the entry).
    """
    if not is_text(entry.get("file_name")) or not entry["file_name"]:
        return Problem(
            "bad-annotation", f"has the file_name {entry.get('file_name')!r:.80}, which is not a string"
        ), None
    segments = entry.get("segments_info")
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        return Problem("bad-annotation", f"has the segments_info {segments!r:.80}, not a list of objects"), None
    seen: set[int] = set()
    for segment in segments:
        problem = _segment_problem(segment, category_ids)
        if problem is None and segment["id"] in seen:
            problem = Problem("duplicate-segment", "has this segment id twice")
        if problem is not None:
            return problem, as_id(segment.get("id"))
        seen.add(segment["id"])
    return None


def _segment_problem(segment: dict[str, Any], category_ids: KnownIds) -> Problem | None:
    segment_id: Any = segment.get("id")
    if type(segment_id) is not int or not VOID < segment_id <= MAX_SEGMENT_ID:
        what = f"has the segment id {segment_id!r:.80}, which is not a whole number from 1 to {MAX_SEGMENT_ID}"
        return Problem("bad-segment-id", f"{what}; {VOID} stands for void")
    problem = id_problem("category", segment.get("category_id"), category_ids)
    if problem is None:
        problem = crowd_problem(segment.get("iscrowd", 0)) or area_problem(segment.get("area"))
    if problem is None and segment.get("bbox") is not None:
        problem = box_problem(segment["bbox"])
    return problem


def check_segment_png(path: Path, size: tuple[int, int], image_id: int | str) -> None:
    """Raise DataError unless a file is an 8-bit RGB PNG of ``size`` (height, width); only its header is read."""
    depth, color_type = check_png_header(path, size, image_id)
    if (depth, color_type) != (8, _RGB):
        raise DataError(
            f"the PNG is not 8-bit RGB, but has color type {color_type} and {depth} bits per channel",
            "save segment ids as R + 256 G + 65536 B, without a palette or alpha", case="bad-segment-png",
            file=path, image_id=image_id,
        )  # fmt: skip


def read_segment_ids(
    path: Path, segment_ids: Iterable[int], size: tuple[int, int], image_id: int | str
) -> Int32[ndarray, "h w"]:
    """Read the segment id of every pixel, 0 for void, from a PNG file.

    Raises DataError for a damaged file, a size other than ``size`` (height, width), pixels with an id that is not in
    ``segment_ids``, and a segment without pixels.
    """
    check_segment_png(path, size, image_id)
    with image_errors_as_data_errors("mask", path, image_id), open_image(path) as image:
        ids = decode_segment_ids(np.array(image))

    def problem(case: str, segment_id: int, what: str, fix: str) -> DataError:
        return DataError(what, fix, case=case, file=path, image_id=image_id, annotation_id=segment_id)

    listed, present = {*segment_ids, VOID}, set(np.unique(ids).tolist())
    for segment_id in sorted(present - listed):
        row, column = np.argwhere(ids == segment_id)[0].tolist()
        what = f"the pixel in row {row}, column {column} belongs to a segment that segments_info does not list"
        raise problem("unlisted-segment", segment_id, what, f"list the segment, or set its pixels to {VOID}, void")
    for segment_id in sorted(listed - present - {VOID}):
        what = "the segment has no pixel in the PNG"
        raise problem("empty-segment", segment_id, what, "remove it from segments_info, or draw its pixels")
    return ids


def decode_segment_ids(colors: UInt8[ndarray, "h w 3"]) -> Int32[ndarray, "h w"]:
    """Return the segment ids that colors encode."""
    return colors.astype(np.int32) @ _WEIGHTS


def encode_segment_ids(ids: Int32[ndarray, "h w"]) -> UInt8[ndarray, "h w 3"]:
    """Return the colors that encode segment ids from 0 to ``MAX_SEGMENT_ID``."""
    return (ids[:, :, None] // _WEIGHTS % 2**8).astype(np.uint8)


def write_segments(
    path: Path, ids: Int32[ndarray, "h w"], segments: Sequence[Mapping[str, Any]], image_id: int | str
) -> dict[str, Any]:
    """Write the PNG file of an image, and return its entry of ``annotations``.

    ``segments`` holds the ``id``, the ``category_id`` and any other fields of each segment. ``area`` and ``bbox`` are
    computed, and ``iscrowd`` is 0 unless it is given.
    """
    Image.fromarray(encode_segment_ids(ids)).save(path)
    entries = [{"iscrowd": 0, **segment, **_area_and_box(ids == segment["id"])} for segment in segments]
    return {"image_id": image_id, "file_name": path.name, "segments_info": entries}


def _area_and_box(mask: ndarray) -> dict[str, Any]:
    """Return the ``area`` and the ``bbox`` of a segment with these pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("a segment needs at least one pixel; leave out empty segments")
    left, top = int(columns[0]), int(rows[0])
    return {"area": int(mask.sum()), "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]}


def write_panoptic_json(
    path: str | os.PathLike[str],
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    categories: Sequence[Mapping[str, Any]],
) -> None:
    """Write the JSON file of a panoptic data set or of panoptic results; a category has an ``isthing`` of 0 or 1."""
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    write_text(path, json.dumps(content, separators=(",", ":")) + "\n")
