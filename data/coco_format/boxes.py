"""Checking the boxes of a COCO file, a whole column at a time."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from ...ops import segmentation_fault
from ...structures import DataError, is_number
from ..clipping import fit_boxes
from ..report import DataReport
from .keys import as_key

XYXY_SUSPICION = 0.2
"""A share of boxes leaving their image beyond which they are probably xyxy in place of xywh."""

BOXES_ONLY = "draw it, or for boxes alone set masks=false and leave out the head's mask branch"
"""What to do about an object without a mask."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxTable:
    """The usable annotations: boxes are xyxy, clipped to their image."""

    rows: Int64[ndarray, " n"]  # where each stands in the file
    images: Int64[ndarray, " n"]  # the place of its image
    boxes: Float32[ndarray, "n 4"]
    labels: Int64[ndarray, " n"]
    crowd: Bool[ndarray, " n"]

    def take(self, order: Int64[ndarray, " n"]) -> "BoxTable":
        """The same in another order."""
        return BoxTable(*(getattr(self, field.name)[order] for field in fields(self)))


def check_boxes(
    annotations: Sequence[tuple[int, Any]],
    images: Mapping[int | str, int],
    sizes: Int64[ndarray, "m 2"],
    labels: Mapping[int, int],
    categories: Collection[int],
    *,
    report: DataReport,
    min_box: float,
    masks: bool,
    path: str | os.PathLike[str],
) -> BoxTable:
    """The usable ones among ``(row, annotation)`` pairs.

    ``images`` and ``labels`` give the place of an image id and the label of a category id; ``categories`` are all ids
    the file declares, of which those without a label are left out by choice. ``masks`` asks for a usable mask too.
    """
    faults = _Faults(report, path)
    rows = np.array([row for row, _ in annotations], np.int64)
    entries: list[dict[str, Any]] = [
        annotation if isinstance(annotation, dict) else {"id": f"at {row}"} for row, annotation in annotations
    ]
    identities = _identities(entries, rows, faults)
    owners: list[Any] = [as_key(entry.get("image_id")) for entry in entries]
    places = np.array([images.get(owner, -1) for owner in owners], np.int64)
    classes = np.array([_class_of(entry, labels, categories) for entry in entries], np.int64)
    crowd = np.array([_crowd_of(entry) for entry in entries], np.int64)
    corners = _corners(entries)
    with np.errstate(invalid="ignore"):
        sides = corners[:, 2:] - corners[:, :2]
    shown = np.array([_number_of_values(entry.get("bbox")) for entry in entries], np.int64)

    faults.raise_or_count(identities, entries, [
        (places < 0, "unknown-image", lambda e: f"belongs to image {e.get('image_id')!r}, which is not in the file"),
        (classes == -2, "unknown-category", lambda e: f"has category {e.get('category_id')!r}, which is not declared"),
        (shown != 4, "malformed-box", lambda e: f"bbox must be four numbers, got {e.get('bbox')!r:.80}"),
        (~np.isfinite(corners).all(axis=1), "non-finite-box", lambda e: f"bbox {e.get('bbox')} is not finite"),
        ((sides < 0).any(axis=1), "negative-box", lambda e: f"bbox {e.get('bbox')} has a negative side"),
        ((sides == 0).any(axis=1), "empty-box", lambda e: f"bbox {e.get('bbox')} has no area"),
        (~_have_areas(entries), "bad-area", lambda e: f"area must be a number >= 0, got {e.get('area')!r:.80}"),
        (crowd < 0, "bad-crowd", lambda e: f"iscrowd must be 0 or 1, got {e.get('iscrowd')!r:.80}"),
    ])  # fmt: skip
    if masks:
        _check_masks(entries, places, sizes, identities, faults)
    report.faulty_rows |= set(rows[faults.found].tolist())
    own = np.flatnonzero(~faults.found)
    corners, shapes = corners[own], sizes[places[own]]
    leaving = np.maximum(-corners, corners - shapes[:, [1, 0, 1, 0]]).max(axis=1, initial=0) > 1
    if len(own) and (share := leaving.mean()) > XYXY_SUSPICION:
        report.warnings.append(
            f"warning: {share:.0%} of the boxes leave their image by more than a pixel; "
            "COCO's are x, y, width, height: are these x1, y1, x2, y2?"
        )
    wanted = classes[own] != -1
    for index in own[~wanted].tolist():
        report.skip("annotations", "other-class", identities[index])
    own = own[wanted]
    names = [identities[index] for index in own.tolist()]
    boxes, kept = fit_boxes(corners[wanted], shapes[wanted], names, report=report, min_box=min_box)
    own = own[kept]
    return BoxTable(rows[own], places[own], boxes[kept].astype(np.float32), classes[own], crowd[own] == 1)


class _Faults:
    """Annotations found unusable so far; each is charged with its first fault only."""

    def __init__(self, report: DataReport, path: str | os.PathLike[str]) -> None:
        self.report, self.path = report, path
        self.found = np.zeros(0, bool)

    def raise_or_count(
        self, identities: Sequence[Any], entries: Sequence[dict[str, Any]], checks: Sequence[tuple]
    ) -> None:
        self.found = np.zeros(len(entries), bool)
        for wrong, case, describe in checks:
            for index in np.flatnonzero(wrong & ~self.found).tolist():
                self.report.fault(
                    "annotations", self.error(case, describe(entries[index]), entries[index], identities[index])
                )
            self.found |= wrong

    def error(self, case: str, what: str, entry: dict[str, Any], identity: Any, fix: str = "correct it") -> DataError:
        return DataError(
            what, f"{fix}, or pass --bad-data=skip", case=case, file=self.path,
            image_id=as_key(entry.get("image_id")), annotation_id=identity,
        )  # fmt: skip


def _check_masks(
    entries: Sequence[dict[str, Any]],
    places: Int64[ndarray, " n"],
    sizes: Int64[ndarray, "m 2"],
    identities: Sequence[Any],
    faults: _Faults,
) -> None:
    """Add the objects without a usable mask to the faults."""
    for index in np.flatnonzero(~faults.found).tolist():
        height, width = sizes[places[index]].tolist()
        fault = segmentation_fault(entries[index].get("segmentation"), (height, width))
        if fault is not None:
            fix = BOXES_ONLY if fault[0] == "no-mask" else "correct it"
            faults.report.fault("annotations", faults.error(*fault, entries[index], identities[index], fix))
            faults.found[index] = True


def _identities(entries: list[dict[str, Any]], rows: ndarray, faults: _Faults) -> list[int | str]:
    """Every annotation's id; one without is called by its row, which is counted. Twins are refused."""
    identities, seen = [], set()
    for entry, row in zip(entries, rows.tolist(), strict=True):
        identity = as_key(entry.get("id"))
        if identity is None:
            identity = f"row {row}"
            faults.report.note("assigned-id", identity)
        elif identity in seen:
            raise faults.error("duplicate-annotation-id", "two annotations have this id", entry, identity)
        seen.add(identity)
        identities.append(identity)
        if entry.get("area") is None:
            faults.report.note("computed-area", identity)
    return identities


def _class_of(entry: dict[str, Any], labels: Mapping[int, int], categories: Collection[int]) -> int:
    """The label; -1 for a class left out by choice, -2 for one that the file does not declare."""
    identity: Any = as_key(entry.get("category_id"))
    return labels.get(identity, -1 if identity in categories else -2)


def _number_of_values(box: Any) -> int:
    """4 for what can be a box: a list of four numbers, not of text or truth values."""
    return len(box) if isinstance(box, list) and all(map(is_number, box)) else -1


def _have_areas(entries: list[dict[str, Any]]) -> Bool[ndarray, " n"]:
    """Whether each area, where one is given, is a number: the metric goes by it."""
    areas = [entry.get("area") for entry in entries]
    return np.array([area is None or (is_number(area) and 0 <= area < math.inf) for area in areas], bool)


def _crowd_of(entry: dict[str, Any]) -> int:
    """1 for a crowd, 0 for an object, -1 for what is neither: text is true to Python, whatever it says."""
    value = entry.get("iscrowd", 0)
    return int(value) if isinstance(value, int) and value in (0, 1) else -1


def _corners(entries: list[dict[str, Any]]) -> ndarray:
    """xywh to xyxy in float64; zeros where there is no box to convert."""
    boxes = [entry.get("bbox") for entry in entries]
    values = np.array(
        [box if _number_of_values(box) == 4 else (0.0, 0.0, 1.0, 1.0) for box in boxes], np.float64
    ).reshape(-1, 4)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.concatenate([values[:, :2], values[:, :2] + values[:, 2:]], axis=1)
