"""The annotations of a COCO file as objects with a box, a label and, where it is wanted, a mask.

All annotations are read into flat arrays and looked at a column at a time. What is not certainly sound by that is
looked at once more by itself, as it stands in the file, by the checks that results and ground truth go through too.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from ...formats.checks import KnownIds, Problem, area_problem, as_id, box_problem, crowd_problem, id_problem
from ...formats.coco import (
    CocoAnnotation,
    CocoMaskAnnotation,
    Row,
    decode_blocks,
    paused_garbage_collection,
    read_row,
)
from ...formats.segmentations import segmentation_problem
from ...structures import DataError, MaskFormat
from ..box_clipping import clip_boxes_to_images
from ..report import DataReport
from .categories import UNDECLARED, Categories
from .images import OUTSIDE, REFUSED, UNKNOWN, ImageTable
from .mask_reader import MaskReader
from .masks import MaskTable
from .polygons import PolygonMaskTable

XYXY_SUSPICION = 0.2
"""The fraction of boxes leaving their image beyond which they are probably xyxy in place of xywh."""
BOXES_ONLY = "draw it, or for boxes alone set masks=false and leave out the head's mask branch"
"""What to do about an object without a mask."""
_IRREGULAR = CocoAnnotation(image_id=0, category_id=0)
"""In place of a row that is not of the usual types, until it is looked at by itself."""
_NO_BOX = (np.nan,) * 4
_LARGEST = 2.0**63
"""From here on a whole number is too large to compute with, as ``structures.is_number`` has it."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTable:
    """The usable annotations: boxes are xyxy, clipped to their image."""

    rows: Int64[ndarray, " n"]
    """Where in the file each stands."""
    images: Int64[ndarray, " n"]
    """The index of each one's image."""
    boxes: Float32[ndarray, "n 4"]
    labels: Int64[ndarray, " n"]
    crowd: Bool[ndarray, " n"]

    def take(self, chosen: Int64[ndarray, " k"]) -> "ObjectTable":
        """Return the chosen objects, in this order."""
        return ObjectTable(*(getattr(self, field.name)[chosen] for field in fields(self)))


class AnnotationReader:
    """Reads the annotations of a file about these images and classes; what is unusable goes to the report.

    A side of a box has at least ``min_box`` pixels; None asks nothing of boxes, which then are zeros. With a
    ``mask_format`` every object must have a usable mask.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        path: str | os.PathLike[str],
        images: ImageTable,
        categories: Categories,
        min_box: float | None,
        mask_format: MaskFormat | None,
    ) -> None:
        count = len(rows)
        self._rows, self._path, self._images, self._categories = rows, path, images, categories
        self._min_box = min_box
        self._masks = None if mask_format is None else MaskReader(count, mask_format)
        self._image_ids = KnownIds.of(images.index_of, "the file")
        self._category_ids = KnownIds.of(categories.label_of, "the file")
        self._indices = np.full(count, UNKNOWN, np.int64)  # of images
        self._labels = np.full(count, UNDECLARED, np.int64)
        self._boxes = np.zeros((count, 4))  # x, y, width, height
        self._areas = np.zeros(count)
        self._crowd = np.zeros(count, np.int64)
        self._unsure = np.zeros(count, bool)  # rows to look at by themselves
        self._mask_missing = np.zeros(count, bool)  # rows whose mask was not kept yet
        self._numbers = np.zeros(count, np.int64)  # the ids that are numbers
        self._names: dict[int, str | None] = {}  # by row, the ids that are not: text, or none
        self._irregular: dict[int, dict[str, Any]] = {}  # by row

    def read(self, report: DataReport) -> tuple[ObjectTable, MaskTable | None, PolygonMaskTable | None]:
        """Return the usable objects, image after image, and their masks in the form that was asked for."""
        row_type = CocoAnnotation if self._masks is None else CocoMaskAnnotation
        with paused_garbage_collection():
            for first, block in decode_blocks(self._rows, row_type):
                self._read_block(first, block)
        for row in np.flatnonzero(self._indices == REFUSED).tolist():
            report.skip("annotations", "on-skipped-image", f"row {row}")
        asked = self._indices > OUTSIDE
        report.read["annotations"] += int(asked.sum()) + report.skipped_count("annotations")
        self._check_ids(asked, report)
        self._check_fields(asked, report)
        objects = self._select(asked, report)
        objects = objects.take(np.argsort(objects.images, kind="stable"))
        self._rows = ()  # the text of a large file takes as much memory as the tables that come now
        if self._masks is None:
            return objects, None, None
        for row in objects.rows[self._masks.empty[objects.rows]].tolist():
            report.note("empty-mask", f"row {row}")
        return objects, *self._masks.tables(objects.rows)

    def _read_block(self, first: int, block: Sequence[CocoAnnotation | None]) -> None:
        """Put the rows from ``first`` on into the columns."""
        rows = np.arange(first, first + len(block))
        index_of, label_of = self._images.index_of, self._categories.label_of
        entries = [_IRREGULAR if entry is None else entry for entry in block]
        self._indices[rows] = [index_of.get(entry.image_id, UNKNOWN) for entry in entries]
        self._labels[rows] = [label_of.get(entry.category_id, UNDECLARED) for entry in entries]
        self._boxes[rows] = [_NO_BOX if entry.bbox is None else entry.bbox for entry in entries]
        self._areas[rows] = [np.nan if entry.area is None else entry.area for entry in entries]
        self._crowd[rows] = [entry.iscrowd for entry in entries]
        self._numbers[rows] = [0 if entry.id is None else entry.id for entry in entries]
        self._names |= {row: None for row, entry in enumerate(entries, start=first) if entry.id is None}
        regular = np.array([entry is not None for entry in block], bool)
        for row in rows[~regular].tolist():
            self._read_irregular(row)
        self._unsure[rows] = ~regular
        if self._masks is not None:
            kept = np.flatnonzero(regular & (self._indices[rows] >= 0))
            self._mask_missing[rows] = True
            self._mask_missing[rows[kept]] = ~self._masks.read_block(
                rows[kept],
                [entry for index in kept.tolist() if isinstance(entry := block[index], CocoMaskAnnotation)],
                self._images.sizes[self._indices[rows[kept]]],
                self._labels[rows[kept]] >= 0,
            )

    def _read_irregular(self, row: int) -> None:
        """Put into the columns what they can hold of a row that is not of the usual types."""
        value = read_row(self._rows[row], self._path)
        entry = self._irregular[row] = value if isinstance(value, dict) else {"id": f"at {row}"}
        image_id, category_id, name = (as_id(entry.get(field)) for field in ("image_id", "category_id", "id"))
        self._indices[row] = UNKNOWN if image_id is None else self._images.index_of.get(image_id, UNKNOWN)
        self._labels[row] = self._categories.label_of.get(category_id, UNDECLARED)
        self._areas[row] = np.nan if entry.get("area") is None else 0
        if isinstance(name, int):
            self._numbers[row] = name
            self._names.pop(row)
        else:
            self._names[row] = name

    def _check_ids(self, asked: Bool[ndarray, " n"], report: DataReport) -> None:
        """Refuse two annotations with one id, whatever the report's policy; count those that have none."""
        numbered = asked.copy()
        numbered[list(self._names)] = False
        rows = np.flatnonzero(numbered)
        repeated = np.ones(len(rows), bool)
        repeated[np.unique(self._numbers[rows], return_index=True)[1]] = False
        twice = rows[repeated].tolist()
        seen: set[str] = set()
        for row, name in sorted(self._names.items()):
            if asked[row] and name is None:
                report.note("assigned-id", f"row {row}")
            elif asked[row] and name in seen:
                twice.append(row)
            elif name is not None:
                seen.add(name)
        if twice:
            raise self._error(min(twice), Problem("duplicate-annotation-id", "two annotations have this id"))

    def _check_fields(self, asked: Bool[ndarray, " n"], report: DataReport) -> None:
        """Refuse annotations that are about no image or class of the file, or whose fields cannot be used."""
        for row in np.flatnonzero(asked & np.isnan(self._areas)).tolist():
            report.note("computed-area", self._id(row))
        unsure = self._unsure | (self._indices < 0) | (self._labels == UNDECLARED) | ~np.isin(self._crowd, (0, 1))
        unsure |= (self._areas < 0) | (self._areas >= _LARGEST) | self._mask_missing
        if self._min_box is not None:
            unsure |= ~((np.abs(self._boxes) < _LARGEST).all(axis=1) & (self._boxes[:, 2:] > 0).all(axis=1))
        for row in np.flatnonzero(asked & unsure).tolist():
            entry = self._entry(row)
            problem = self._problem(entry, row)
            if problem is not None:
                report.reject("annotations", self._error(row, problem))
                report.rejected_rows.add(row)
                continue
            self._crowd[row] = entry.get("iscrowd", 0)
            if self._min_box is not None:
                self._boxes[row] = entry["bbox"]
            if self._mask_missing[row] and self._masks is not None and self._labels[row] >= 0:
                self._masks.read_one(row, entry["segmentation"], self._size(row))

    def _problem(self, entry: dict[str, Any], row: int) -> Problem | None:
        """Return what is wrong with an annotation as it stands in the file."""
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
        return problem

    def _select(self, asked: Bool[ndarray, " n"], report: DataReport) -> ObjectTable:
        """Return the objects to learn from: of the chosen classes, inside their image and not too small."""
        asked[list(report.rejected_rows)] = False
        rows = np.flatnonzero(asked)
        for row in rows[self._labels[rows] < 0].tolist():
            report.skip("annotations", "other-class", self._id(row))
        chosen = rows[self._labels[rows] >= 0]
        if self._min_box is None:
            boxes = np.zeros((len(chosen), 4))
        else:
            warn_of_corners(self._corners(rows), self._images.sizes[self._indices[rows]], report)
            boxes, kept = clip_boxes_to_images(
                self._corners(chosen),
                self._images.sizes[self._indices[chosen]],
                lambda position: self._id(int(chosen[position])),
                report=report,
                min_box=self._min_box,
            )
            chosen, boxes = chosen[kept], boxes[kept]
        return ObjectTable(
            chosen, self._indices[chosen], boxes.astype(np.float32), self._labels[chosen], self._crowd[chosen] == 1
        )

    def _corners(self, rows: Int64[ndarray, " k"]) -> Float64[ndarray, "k 4"]:
        """Return the boxes of these rows as x1, y1, x2, y2."""
        boxes = self._boxes[rows]
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    def _entry(self, row: int) -> dict[str, Any]:
        """Return an annotation as it stands in the file."""
        if row not in self._irregular:
            return read_row(self._rows[row], self._path)
        return self._irregular[row]

    def _id(self, row: int) -> int | str:
        """Return an annotation's id; one without is called by its row."""
        if row not in self._names:
            return self._numbers[row].item()
        return self._names[row] or f"row {row}"

    def _size(self, row: int) -> tuple[int, int]:
        """Return the (height, width) of an annotation's image."""
        height, width = self._images.sizes[self._indices[row]].tolist()
        return height, width

    def _error(self, row: int, problem: Problem) -> DataError:
        fix = BOXES_ONLY if problem.case == "no-mask" else "correct it"
        return DataError(
            problem.what, f"{fix}, or pass --bad-data=skip", case=problem.case, file=self._path,
            image_id=as_id(self._entry(row).get("image_id")), annotation_id=self._id(row),
        )  # fmt: skip


def warn_of_corners(corners: Float64[ndarray, "n 4"], sizes: Int64[ndarray, "n 2"], report: DataReport) -> None:
    """Warn where so many boxes leave their image, of (height, width), that their sizes must be corners."""
    leaving = np.maximum(-corners, corners - sizes[:, [1, 0, 1, 0]]).max(axis=1, initial=0) > 1
    if len(corners) and (fraction := leaving.mean()) > XYXY_SUSPICION:
        report.warnings.append(
            f"warning: {fraction:.0%} of the boxes leave their image by more than a pixel; "
            "COCO's are x, y, width, height: are these x1, y1, x2, y2?"
        )
