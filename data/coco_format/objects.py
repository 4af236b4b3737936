"""Reading of ``annotations`` in a COCO file: objects with a box, a label and optionally a mask and keypoints.

All annotations are read into flat arrays and checked by vectorized operations. An annotation that does not pass them is
checked again on its own, as it is in the file, by the checks of :mod:`vertebra.formats.checks`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from ...formats.checks import KnownIds, Problem, area_problem, as_id, box_problem, crowd_problem, id_problem
from ...formats.coco import CocoAnnotation, CocoFile, CocoMaskAnnotation, decode_blocks, read_row
from ...formats.coco_corrections import correct_entry
from ...formats.json_files import paused_garbage_collection
from ...formats.segmentations import box_of_segmentation, segmentation_problem
from ...structures import DataError, MaskFormat
from ..box_clipping import check_box_format, clip_boxes_to_images
from ..report import DataReport
from .categories import UNDECLARED, Categories
from .images import OUTSIDE, REFUSED, UNKNOWN, ImageTable
from .keypoints import KeypointReader
from .mask_reader import MaskReader
from .masks import MaskTable
from .polygons import PolygonMaskTable

_FIXES = {
    "no-mask": "add it, or for boxes alone set masks=false and leave out the head's mask branch",
    "duplicate-annotation-id": "give every annotation an id of its own, or pass --bad-data=skip to ignore the ids",
}
"""Instructions for the user about an unusable annotation, by case; for other cases it is to correct it."""
_IRREGULAR = CocoAnnotation(image_id=0, category_id=0)
"""Placeholder for a row whose fields do not have the expected types, until it is read on its own."""
_NO_BOX = (np.nan,) * 4
_TOO_LARGE = 2.0**63
"""Numbers from this on are refused, as in ``structures.is_number``."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """The usable annotations of a COCO file."""

    rows: Int64[ndarray, " n"]
    """The index of each annotation in the file."""
    images: Int64[ndarray, " n"]
    """The index of its image in the :class:`ImageTable`."""
    boxes: Float32[ndarray, "n 4"]
    """xyxy in pixels, clipped to the image."""
    labels: Int64[ndarray, " n"]
    crowd: Bool[ndarray, " n"]
    """Whether it is a crowd."""
    keypoints: Float32[ndarray, "n k 3"]
    """(x, y, visibility) of each keypoint; k is 0 if keypoints are not read."""

    def take(self, chosen: Int64[ndarray, " k"]) -> "ObjectTable":
        """Return the chosen objects, in this order."""
        return ObjectTable(*(getattr(self, field.name)[chosen] for field in fields(self)))


class AnnotationReader:
    """Reader that checks the annotations of a file and returns those of the selected images and classes.

    ``min_box`` is the minimum side of a box in pixels; None ignores the boxes, which are then zeros. With a
    ``mask_format`` the masks are read too, and every object must have a valid one. If the categories have a skeleton,
    the keypoints are read too.
    """

    def __init__(
        self,
        file: CocoFile,
        path: str | os.PathLike[str],
        images: ImageTable,
        categories: Categories,
        min_box: float | None,
        mask_format: MaskFormat | None,
    ) -> None:
        self._rows, self._origin, count = file.annotations, file.origin, len(file.annotations)
        self._path, self._images, self._categories, self._min_box = path, images, categories, min_box
        self._masks = None if mask_format is None else MaskReader(count, mask_format)
        self._keypoints = KeypointReader(categories.skeleton, count)
        self._image_ids = KnownIds.of(images.index_of, "the file")
        self._category_ids = KnownIds.of(categories.label_of, "the file")
        self._indices = np.full(count, UNKNOWN, np.int64)  # image indices
        self._labels = np.full(count, UNDECLARED, np.int64)
        self._boxes = np.zeros((count, 4))  # x, y, width, height
        self._areas = np.zeros(count)
        self._crowd = np.zeros(count, np.int64)
        self._is_irregular = np.zeros(count, bool)  # rows whose fields do not have the expected types
        self._mask_missing = np.zeros(count, bool)  # rows whose mask has not been stored yet
        self._number_ids = np.zeros(count, np.int64)  # annotation ids that are integers
        self._other_ids: dict[int, str | None] = {}  # by row: annotation ids that are text, or None if there is none
        self._entries: dict[int, dict[str, Any]] = {}  # by row: the parsed and corrected entries of suspect rows
        self._corrections: dict[int, list[str]] = {}  # by row: the cases of corrections

    def read(self, report: DataReport) -> tuple[ObjectTable, MaskTable | None, PolygonMaskTable | None]:
        """Return the usable objects, sorted by image, and their masks as bitmaps or polygons.

        Unusable annotations are rejected or skipped in the report.
        """
        row_type = CocoAnnotation if self._masks is None else CocoMaskAnnotation
        with paused_garbage_collection():
            for first, block in decode_blocks(self._rows, row_type):
                self._read_block(first, block)
            self._keypoints.read(self._rows, self._labels >= 0)
        for row in np.flatnonzero(self._indices == REFUSED).tolist():
            report.skip("annotations", "on-skipped-image", self._row_name(row))
        in_subset = self._indices > OUTSIDE  # includes annotations of unknown images, which are errors
        report.read["annotations"] += int(in_subset.sum()) + report.skipped_count("annotations")
        self._check_ids(in_subset, report)
        self._check_fields(in_subset, report)
        objects = self._select(in_subset, report)
        objects = objects.take(np.argsort(objects.images, kind="stable"))
        self._rows = ()  # free the text, which for a large file takes as much memory as the mask tables built next
        if self._masks is None:
            return objects, None, None
        for row in objects.rows[self._masks.empty[objects.rows]].tolist():
            report.note("empty-mask", self._row_name(row))
        return objects, *self._masks.tables(objects.rows)

    def _read_block(self, first: int, block: Sequence[CocoAnnotation | None]) -> None:
        """Store a block of annotations, which begins with row ``first``, in the arrays."""
        rows = np.arange(first, first + len(block))
        index_of, label_of = self._images.index_of, self._categories.label_of
        entries = [_IRREGULAR if entry is None else entry for entry in block]
        self._indices[rows] = [index_of.get(entry.image_id, UNKNOWN) for entry in entries]
        self._labels[rows] = [label_of.get(entry.category_id, UNDECLARED) for entry in entries]
        self._boxes[rows] = [_NO_BOX if entry.bbox is None else entry.bbox for entry in entries]
        self._areas[rows] = [np.nan if entry.area is None else entry.area for entry in entries]
        self._crowd[rows] = [entry.iscrowd for entry in entries]
        self._number_ids[rows] = [0 if entry.id is None else entry.id for entry in entries]
        self._other_ids |= {row: None for row, entry in enumerate(entries, start=first) if entry.id is None}
        regular = np.array([entry is not None for entry in block], bool)
        for row in rows[~regular].tolist():
            self._read_irregular(row)
        self._is_irregular[rows] = ~regular
        if self._masks is not None:
            positions = np.flatnonzero(regular & (self._indices[rows] >= 0))
            mask_rows = rows[positions]
            self._mask_missing[rows] = True
            self._mask_missing[mask_rows] = ~self._masks.read_block(
                mask_rows,
                [entry for index in positions.tolist() if isinstance(entry := block[index], CocoMaskAnnotation)],
                self._images.sizes[self._indices[mask_rows]],
                self._labels[mask_rows] >= 0,
            )

    def _read_irregular(self, row: int) -> None:
        """Store the valid fields of a row whose fields do not all have the expected types."""
        entry = self._entry(row)
        image_id, category_id, annotation_id = (as_id(entry.get(field)) for field in ("image_id", "category_id", "id"))
        self._indices[row] = UNKNOWN if image_id is None else self._images.index_of.get(image_id, UNKNOWN)
        self._labels[row] = self._categories.label_of.get(category_id, UNDECLARED)
        self._areas[row] = np.nan if entry.get("area") is None else 0
        if isinstance(annotation_id, int):
            self._number_ids[row] = annotation_id
            self._other_ids.pop(row)
        else:
            self._other_ids[row] = annotation_id

    def _check_ids(self, in_subset: Bool[ndarray, " n"], report: DataReport) -> None:
        """Count annotations without an id, and those with the id of another one: under the policy "error", the latter
        raise DataError."""
        has_number_id = in_subset.copy()
        has_number_id[list(self._other_ids)] = False
        rows = np.flatnonzero(has_number_id)
        repeated = np.ones(len(rows), bool)
        repeated[np.unique(self._number_ids[rows], return_index=True)[1]] = False
        duplicate_rows = rows[repeated].tolist()
        seen: set[str] = set()
        for row, text_id in sorted(self._other_ids.items()):
            if in_subset[row] and text_id is None:
                report.note("assigned-id", f"row {row}")
            elif in_subset[row] and text_id in seen:
                duplicate_rows.append(row)
            elif text_id is not None:
                seen.add(text_id)
        if duplicate_rows and report.policy == "error":
            raise self._error(min(duplicate_rows), Problem("duplicate-annotation-id", "two annotations have this id"))
        for row in duplicate_rows:
            report.note("renumbered-id", f"row {row}")
            self._other_ids[row] = None

    def _check_fields(self, in_subset: Bool[ndarray, " n"], report: DataReport) -> None:
        """Refuse annotations of unknown images or categories, and those with invalid fields."""
        if self._origin is None:  # other formats have no areas
            for row in np.flatnonzero(in_subset & np.isnan(self._areas)).tolist():
                report.note("computed-area", self._id(row))
        suspect = self._is_irregular | self._mask_missing | (self._indices < 0) | (self._labels == UNDECLARED)
        suspect |= (self._areas < 0) | (self._areas >= _TOO_LARGE) | ~np.isin(self._crowd, (0, 1))
        if self._min_box is not None:
            suspect |= ~((np.abs(self._boxes) < _TOO_LARGE).all(axis=1) & (self._boxes[:, 2:] > 0).all(axis=1))
        suspect |= self._keypoints.suspect
        for row in np.flatnonzero(in_subset & self._keypoints.missing).tolist():
            report.note("no-keypoints", self._id(row))
        for row in np.flatnonzero(in_subset & suspect).tolist():
            entry = self._with_box(self._entry(row), row, report)
            problem = self._problem(entry, row)
            if problem is not None:
                report.reject("annotations", self._error(row, problem))
                report.rejected_rows.add(row)
                continue
            for case in self._corrections[row]:
                report.note(case, self._id(row))
            self._crowd[row] = entry.get("iscrowd", 0)
            if self._min_box is not None:
                self._boxes[row] = entry["bbox"]
            if self._mask_missing[row] and self._masks is not None and self._labels[row] >= 0:
                self._masks.read_one(row, entry["segmentation"], self._size(row))
            if self._keypoints.suspect[row] and entry.get("keypoints"):
                self._keypoints.read_one(row, entry["keypoints"])

    def _with_box(self, entry: dict[str, Any], row: int, report: DataReport) -> dict[str, Any]:
        """Return an annotation with the box of its mask, if it has a mask and no box."""
        if self._min_box is None or entry.get("bbox") is not None or self._indices[row] < 0:
            return entry
        box = box_of_segmentation(entry.get("segmentation"), self._size(row))
        if box is None:
            return entry
        report.note("box-of-mask", self._id(row))
        return entry | {"bbox": box}

    def _problem(self, entry: dict[str, Any], row: int) -> Problem | None:
        """Check an annotation as it is in the file; return None if it is valid."""
        unknown = id_problem("image", entry.get("image_id"), self._image_ids)
        if unknown is not None:
            return Problem("unknown-image", unknown.what)
        unknown = id_problem("category", entry.get("category_id"), self._category_ids)
        if unknown is not None:
            return Problem("unknown-category", unknown.what)
        problem = None if self._min_box is None else box_problem(entry.get("bbox"), empty_allowed=False)
        problem = problem or area_problem(entry.get("area")) or crowd_problem(entry.get("iscrowd", 0))
        if problem is None and self._masks is not None:
            problem = segmentation_problem(entry.get("segmentation"), self._size(row))
        return self._keypoints.problem(entry) if problem is None and self._keypoints.suspect[row] else problem

    def _select(self, in_subset: Bool[ndarray, " n"], report: DataReport) -> ObjectTable:
        """Return the objects for training: valid, of the selected classes, inside their image and not too small."""
        in_subset[list(report.rejected_rows)] = False
        rows = np.flatnonzero(in_subset)
        for row in rows[self._labels[rows] < 0].tolist():
            report.skip("annotations", "other-class", self._id(row))
        chosen = rows[self._labels[rows] >= 0]
        if self._min_box is None:
            boxes = np.zeros((len(chosen), 4))
        else:
            if self._origin is None:
                check_box_format(self._corners(rows), self._images.sizes[self._indices[rows]], report)
            boxes, usable = clip_boxes_to_images(
                self._corners(chosen),
                self._images.sizes[self._indices[chosen]],
                lambda position: self._id(int(chosen[position])),
                report=report,
                min_box=self._min_box,
            )
            chosen, boxes = chosen[usable], boxes[usable]
        return ObjectTable(
            chosen, self._indices[chosen], boxes.astype(np.float32), self._labels[chosen], self._crowd[chosen] == 1,
            self._keypoints.values(chosen),
        )  # fmt: skip

    def _corners(self, rows: Int64[ndarray, " k"]) -> Float64[ndarray, "k 4"]:
        """Return the boxes of these rows as x1, y1, x2, y2."""
        boxes = self._boxes[rows]
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    def _entry(self, row: int) -> dict[str, Any]:
        """Return an annotation as it is in the file, corrected where there is no doubt what is meant."""
        if row not in self._entries:
            value = read_row(self._rows[row], self._path)
            entry = self._entries[row] = value if isinstance(value, dict) else {"id": f"at {row}"}
            self._corrections[row] = correct_entry(entry)
        return self._entries[row]

    def _id(self, row: int) -> int | str:
        """Return the id of an annotation, or ``row N`` if it has none; for other formats its place in the files."""
        if self._origin is not None:
            return str(self._origin.places[row])
        if row not in self._other_ids:
            return self._number_ids[row].item()
        return self._other_ids[row] or f"row {row}"

    def _row_name(self, row: int) -> str:
        """Return the row of an annotation, or for other formats its place in the files."""
        return f"row {row}" if self._origin is None else str(self._origin.places[row])

    def _size(self, row: int) -> tuple[int, int]:
        """Return the (height, width) of an annotation's image."""
        height, width = self._images.sizes[self._indices[row]].tolist()
        return height, width

    def _error(self, row: int, problem: Problem) -> DataError:
        if self._origin is not None and row in self._origin.problems:
            return self._origin.problems[row]
        place = None if self._origin is None else self._origin.places[row]
        return DataError(
            problem.what, _FIXES.get(problem.case, "correct it"), case=problem.case,
            file=self._path if place is None else place.file, image_id=as_id(self._entry(row).get("image_id")),
            annotation_id=self._id(row) if place is None else place.item,
        )  # fmt: skip
