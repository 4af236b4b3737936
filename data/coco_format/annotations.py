"""A COCO annotation file as checked, flat arrays: nothing native ever sees an unchecked number.

Memory stays flat in data-loading workers: a fork shares arrays as they are, while reading a Python object writes its
reference count and so copies its page.
"""

import os
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from ...structures import MaskFormat
from ..report import DataReport
from .categories import read_categories
from .faults import AnnotationChecks
from .images import ImageTable, read_images
from .json_file import read_sections
from .keys import as_key
from .masks import MaskTable
from .objects import ObjectTable, check_objects
from .polygons import PolygonMaskTable


@dataclass(frozen=True, slots=True, eq=False)
class CocoAnnotations:
    """Images and their objects; those of image ``i`` are ``starts[i]:starts[i + 1]``. Boxes are xyxy, clipped."""

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_rows: ndarray  # where the image stands in the file
    image_ids: ndarray
    file_names: ndarray  # UTF-8 bytes
    sizes: ndarray  # declared (height, width)
    starts: ndarray
    rows: ndarray  # where the object stands in the file
    boxes: ndarray
    labels: ndarray
    crowd: ndarray
    masks: MaskTable | None = None
    polygon_masks: PolygonMaskTable | None = None


def read_annotations(
    path: str | os.PathLike[str],
    report: DataReport,
    *,
    class_names: Sequence[str] | None = None,
    min_box: float | None = 0.0,
    masks: MaskFormat | None = None,
    subset: int | None = None,
) -> CocoAnnotations:
    """Read and check a COCO file; what is unusable goes to the report, which raises or counts it.

    ``class_names`` chooses and orders the classes, ``min_box`` drops objects with a shorter side (pixels) or, as None,
    asks nothing of boxes and gives none, ``masks`` reads their masks too, in one form or the other, ``subset`` takes
    the first images only.
    """
    sections = read_sections(path)
    categories = read_categories(sections["categories"], class_names, path)
    listed = read_images(sections["images"], report, path)
    images = listed.first(subset)
    wanted = _choose(sections["annotations"], images, set(listed.ids[len(images) :].tolist()), report)
    checked = AnnotationChecks(wanted, report, path)
    objects = check_objects(checked, images, categories, min_box=min_box, masks=masks is not None)
    objects = objects.take(np.argsort(objects.images, kind="stable"))
    starts = np.searchsorted(objects.images, np.arange(len(images) + 1))
    tables = _read_masks(sections["annotations"], objects, images.sizes, report, masks) if masks else (None, None)
    return CocoAnnotations(
        categories.names, categories.ids, images.rows, images.ids, images.file_names, images.sizes, starts,
        objects.rows, objects.boxes, objects.labels, objects.crowd, *tables,
    )  # fmt: skip


def _choose(
    annotations: Sequence[Any], images: ImageTable, outside: Set[int | str], report: DataReport
) -> list[tuple[int, Any]]:
    """The annotations to check, each with its row: not those of ``outside`` images, which a subset leaves out, nor of
    refused ones, which are counted."""
    wanted = []
    for row, annotation in enumerate(annotations):
        owner = as_key(annotation.get("image_id")) if isinstance(annotation, dict) else None
        if owner in images.refused:
            report.skip("annotations", "on-skipped-image", f"row {row}")
        elif owner not in outside:
            wanted.append((row, annotation))
    report.read["images"] += len(images) + report.skipped_count("images")
    report.read["annotations"] += len(wanted) + report.skipped_count("annotations")
    return wanted


def _read_masks(
    annotations: Sequence[dict[str, Any]], objects: ObjectTable, sizes: ndarray, report: DataReport, kind: MaskFormat
) -> tuple[MaskTable | None, PolygonMaskTable | None]:
    """The masks of the usable objects; an empty one is noted: its object teaches boxes only."""
    shapes: list[tuple[int, int]] = [tuple(size) for size in sizes[objects.images].tolist()]
    wanted = [annotations[row]["segmentation"] for row in objects.rows.tolist()]
    pairs = list(zip(wanted, shapes, strict=True))
    table = MaskTable.encode(pairs)
    for row in objects.rows[table.areas == 0].tolist():
        report.note("empty-mask", f"row {row}")
    return (table, None) if kind == "bitmaps" else (None, PolygonMaskTable.encode(pairs))
