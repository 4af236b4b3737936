"""A COCO annotation file as flat arrays, checked so that native code never sees an invalid number."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from ...formats.coco import CocoFile
from ...structures import DataError, MaskFormat, Skeleton
from ..cache import Contents, map_entry
from ..report import DataReport
from .categories import read_categories
from .images import read_images
from .keypoints import CocoKeypointsConfig
from .masks import MaskTable
from .objects import AnnotationReader
from .polygons import PolygonMaskTable


@dataclass(frozen=True, slots=True, eq=False)
class CocoAnnotations:
    """The images and objects of a COCO annotation file; image ``i`` has the objects ``starts[i]:starts[i + 1]``."""

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    image_rows: ndarray
    """The index of each image in ``images`` of the file."""
    image_ids: ndarray
    file_names: ndarray
    """UTF-8 bytes."""
    sizes: ndarray
    """(height, width) of each image, as declared in the file."""
    starts: ndarray
    rows: ndarray
    """The index of each object in ``annotations`` of the file."""
    boxes: ndarray
    """xyxy in pixels, clipped to the image."""
    labels: ndarray
    crowd: ndarray
    """Whether each object is a crowd."""
    keypoints: ndarray
    """(x, y, visibility) of each keypoint of each object, of shape (n, k, 3); k is 0 if there is no skeleton."""
    skeleton: Skeleton | None = None
    masks: MaskTable | None = None
    polygon_masks: PolygonMaskTable | None = None
    entry: Path | None = None
    """The folder of the cache entry whose files are mapped; None if the arrays are in memory."""

    def arrays(self) -> dict[str, ndarray]:
        """Return all arrays by name, including the arrays of masks."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        if self.masks is not None:
            arrays |= _arrays_of(self.masks, "masks.")
        if self.polygon_masks is not None:
            arrays |= _arrays_of(self.polygon_masks, "polygons.") | _arrays_of(self.polygon_masks.bitmaps, "bitmaps.")
        return arrays

    @classmethod
    def of_contents(cls, contents: Contents) -> "CocoAnnotations":
        """Build the annotations from the contents of a cache entry."""
        arrays, facts = contents.arrays, contents.facts
        masks = polygon_masks = None
        if "masks.text" in arrays:
            masks = MaskTable(**_arrays_with(arrays, "masks."))
        if "polygons.points" in arrays:
            bitmaps = MaskTable(**_arrays_with(arrays, "bitmaps."))
            polygon_masks = PolygonMaskTable(**_arrays_with(arrays, "polygons."), bitmaps=bitmaps)
        return cls(
            tuple(facts["class_names"]),
            tuple(facts["category_ids"]),
            **{name: arrays[name] for name in _ARRAYS},
            skeleton=None if facts["skeleton"] is None else Skeleton.from_json(facts["skeleton"]),
            masks=masks,
            polygon_masks=polygon_masks,
            entry=contents.entry,
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle mapped arrays as the path of their cache entry, so that workers map the same files without a copy."""
        return object.__reduce_ex__(self, protocol) if self.entry is None else (_map_again, (self.entry,))


_ARRAYS = (
    "image_rows", "image_ids", "file_names", "sizes", "starts", "rows", "boxes", "labels", "crowd",
    "keypoints",
)  # fmt: skip


def _map_again(entry: Path) -> CocoAnnotations:
    try:
        return CocoAnnotations.of_contents(map_entry(entry, verified=True))
    except (OSError, ValueError) as error:
        raise DataError(
            "the cache entry of this data set is gone", "open the data set again",
            case="cache", file=entry,
        ) from error  # fmt: skip


def _arrays_of(table: MaskTable | PolygonMaskTable, prefix: str) -> dict[str, ndarray]:
    values = {field.name: getattr(table, field.name) for field in fields(table)}
    return {prefix + name: value for name, value in values.items() if isinstance(value, ndarray)}


def _arrays_with(arrays: Mapping[str, ndarray], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def read_annotations(
    file: CocoFile,
    path: str | os.PathLike[str],
    report: DataReport,
    *,
    class_names: Sequence[str] | None = None,
    min_box: float | None = 0.0,
    masks: MaskFormat | None = None,
    keypoints: CocoKeypointsConfig | None = None,
    subset: int | None = None,
    read_size: Callable[[str, int | str], tuple[int, int]],
) -> CocoAnnotations:
    """Check the contents of a COCO file and convert them to arrays; the report raises or counts unusable entries.

    ``class_names`` selects and orders the classes; None takes all. ``min_box`` is the minimum side of a box in pixels;
    None ignores the boxes. ``masks`` is the form in which masks are read, and ``keypoints`` says how keypoints are
    read; None reads none. ``subset`` is the number of images to take from the beginning of the file; None takes all.
    ``read_size`` returns the (height, width) of an image file, for entries without a size.
    """
    categories = read_categories(file.categories, class_names, path, keypoints)
    if keypoints is None:
        for category in file.categories:
            if category.get("keypoints") and category["id"] in categories.ids:
                report.note("unused-keypoints", category["name"])
    problems = file.origin.image_problems if file.origin else {}
    images = read_images(file.images, report, path, subset, read_size, problems)
    report.read["images"] += len(images) + report.skipped_count("images")
    reader = AnnotationReader(file, path, images, categories, min_box, masks)
    objects, mask_table, polygon_table = reader.read(report)
    _report_origin(file, report)
    return CocoAnnotations(
        categories.names, categories.ids, images.rows, images.ids, images.file_names, images.sizes,
        np.searchsorted(objects.images, np.arange(len(images) + 1)),
        objects.rows, objects.boxes, objects.labels, objects.crowd, objects.keypoints,
        categories.skeleton, mask_table, polygon_table,
    )  # fmt: skip


def _report_origin(file: CocoFile, report: DataReport) -> None:
    """Count in the report what the reader of a format other than COCO's left out or noticed."""
    if file.origin is None:
        return
    for case, item in file.origin.notes:
        report.note(case, item)
    for case, item in file.origin.skipped:
        report.read["annotations"] += 1
        report.skip("annotations", case, item)
