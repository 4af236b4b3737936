"""Panoptic segmentation: results rows, and panoptic quality (1801.00868) by the rules of panopticapi.

A predicted and a true segment of the same class match if their IoU is above 0.5; void pixels of the ground truth are
excluded from the union. An unmatched prediction is ignored if more than half of its pixels are void or belong to a
crowd of its class.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy import ndarray

from ..formats.checks import KnownIds, Problem, id_problem
from ..formats.panoptic import MAX_SEGMENT_ID
from ..formats.results import GROUND_TRUTH, ResultError, mask_problem, missing_field_problem
from ..formats.rle import decode_mask, encode_mask, size_problem
from ..structures import VOID, Classes, PanopticSegmentation, Segment, is_number
from .scores import Scores

MIN_IOU = 0.5
"""Segments match if their IoU is above this value, so that no segment can have two matches."""
MAX_IGNORED = 0.5
"""An unmatched prediction is ignored if more than this fraction of its pixels is void or a crowd of its class."""


def to_panoptic_results(
    segmentation: PanopticSegmentation, image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the results rows of one image: a single row with all segments, whose masks are RLE.

    The segmentation has the original size of the image. ``category_ids`` holds the category id of each label in the
    annotation file.
    """
    segments = []
    for segment in segmentation.segments:
        mask = encode_mask(segmentation.mask(segment).cpu().numpy())
        score = {} if segment.score is None else {"score": segment.score}
        segments.append({"id": segment.id, "category_id": category_ids[segment.label], **score, "segmentation": mask})
    return [{"image_id": image_id, "size": list(segmentation.ids.shape), "segments_info": segments}]


def from_panoptic_result(row: Mapping[str, Any], classes: Classes, index: int = 0) -> PanopticSegmentation:
    """Convert a row of :func:`to_panoptic_results` to a segmentation.

    Raises ResultError, which names the ``index`` of the row, if the row is invalid, or if segments overlap or are
    empty.
    """
    labels = {category_id: label for label, category_id in enumerate(classes.ids)}
    problem = _row_problem(row, KnownIds.of(labels, GROUND_TRUTH))
    if problem is not None:
        raise ResultError.of(index, row, problem)
    ids = np.full(row["size"], VOID, np.int32)
    segments = []
    for segment in row["segments_info"]:
        mask, what = decode_mask(segment["segmentation"]).astype(bool), f"has the segment {segment['id']}, which "
        if overlap := int((ids[mask] != VOID).sum()):
            problem = Problem("overlapping-segments", f"{what}overlaps another segment in {overlap} pixels")
            raise ResultError.of(index, row, problem)
        if not mask.any():
            raise ResultError.of(index, row, Problem("empty-segment", f"{what}has no pixels"))
        ids[mask] = segment["id"]
        label = labels[segment["category_id"]]
        segments.append(Segment(segment["id"], label, label < (classes.num_things or 0), segment.get("score")))
    return PanopticSegmentation(torch.from_numpy(ids), tuple(segments))


def _row_problem(row: Mapping[str, Any], category_ids: KnownIds) -> Problem | None:
    """Check a row, except its image id and the pixels of its segments; return None if it is valid."""
    problem = missing_field_problem(row, "image_id", "size", "segments_info")
    if problem is not None:
        return problem
    segments = row["segments_info"]
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        return Problem("bad-results", f"has the segments_info {segments!r:.80}, which is not a list of objects")
    if (what := size_problem(row["size"])) is not None:
        return Problem("bad-mask", what)
    seen: set[int] = set()
    for segment in segments:
        problem = _segment_problem(segment, (row["size"][0], row["size"][1]), category_ids)
        if problem is None and segment["id"] in seen:
            problem = Problem("duplicate-segment", f"has two segments with the id {segment['id']}")
        if problem is not None:
            return problem
        seen.add(segment["id"])
    return None


def _segment_problem(segment: Mapping[str, Any], size: tuple[int, int], category_ids: KnownIds) -> Problem | None:
    problem = missing_field_problem(segment, "id", "category_id", "segmentation")
    if problem is not None:
        return Problem(problem.case, f"has a segment that {problem.what}")
    if type(segment["id"]) is not int or not VOID < segment["id"] <= MAX_SEGMENT_ID:
        what = f"has the segment id {segment['id']!r:.80}, which is not a whole number from 1 to {MAX_SEGMENT_ID}"
        return Problem("bad-segment-id", what)
    score = segment.get("score", 0.0)
    if not is_number(score) or not math.isfinite(score):
        return Problem("bad-score", f"has a segment with the score {score!r:.80}, which is not a finite number")
    problem = id_problem("category", segment["category_id"], category_ids)
    return problem or mask_problem(segment["segmentation"], size)


@dataclass(slots=True)
class ClassCounts:
    """The matched and unmatched segments of one class over all images."""

    ious: list[float] = field(default_factory=list)
    """The IoU of each matched pair of segments (true positives)."""
    false_negatives: int = 0
    """The number of true segments without a match (false negatives)."""
    false_positives: int = 0
    """The number of predicted segments without a match, except ignored ones (false positives)."""

    def quality(self) -> tuple[float, float, float] | None:
        """Return (PQ, SQ, RQ): panoptic, segmentation and recognition quality; None if the class does not occur."""
        matches = len(self.ious)
        total = matches + 0.5 * self.false_negatives + 0.5 * self.false_positives
        if not total:
            return None
        # An exact sum does not depend on the order of the images.
        total_iou = math.fsum(self.ious)
        return total_iou / total, total_iou / matches if matches else 0.0, matches / total


def evaluate_panoptic(
    ground_truth: Mapping[Any, PanopticSegmentation], results: Sequence[dict[str, Any]], classes: Classes
) -> Scores:
    """Score rows of :func:`to_panoptic_results` against the ground truth, a mapping from image id to segmentation.

    PQ, SQ and RQ are means over the classes that occur in the ground truth or in a prediction; they are given for all
    classes, for things and for stuff. All segments of an image without a row count as missed. Raises ResultError for an
    invalid row.
    """
    rows = _rows_by_image(results, KnownIds.of(ground_truth, GROUND_TRUTH))
    counts = [ClassCounts() for _ in classes.names]
    totals = dict.fromkeys(("true_segments", "crowds", "predicted_segments", "ignored_predictions"), 0)
    for image_id, truth in ground_truth.items():
        index, row = rows.get(image_id, (0, None))
        predicted = None if row is None else from_panoptic_result(row, classes, index)
        if predicted is not None and predicted.ids.shape != truth.ids.shape:
            what = f"has the size {list(predicted.ids.shape)} (height, width), its image {list(truth.ids.shape)}"
            raise ResultError.of(index, row, Problem("bad-mask", what))
        totals["ignored_predictions"] += _count_image(truth, predicted, counts)
        crowds = sum(segment.crowd for segment in truth.segments)
        totals["true_segments"] += len(truth) - crowds
        totals["crowds"] += crowds
        totals["predicted_segments"] += 0 if predicted is None else len(predicted)
    qualities = [count.quality() for count in counts]
    things = classes.num_things or 0
    summary = _means(qualities) | _means(qualities[:things], "_things") | _means(qualities[things:], "_stuff")
    per_class = [None if quality is None else quality[0] for quality in qualities]
    images = {"images": len(ground_truth), "images_without_result": len(ground_truth) - len(rows)}
    return Scores(summary, dict(zip(classes.names, per_class, strict=True)), images | totals)


def _means(qualities: Sequence[tuple[float, float, float] | None], suffix: str = "") -> dict[str, float | None]:
    """Return the means of PQ, SQ and RQ over the classes that occur, by name; None if no class occurs."""
    measured = [quality for quality in qualities if quality is not None]
    means = [sum(column) / len(measured) for column in zip(*measured, strict=True)] or [None] * 3
    return {f"{name}{suffix}": mean for name, mean in zip(("PQ", "SQ", "RQ"), means, strict=True)}


def _rows_by_image(
    results: Sequence[dict[str, Any]], image_ids: KnownIds
) -> dict[int | str, tuple[int, dict[str, Any]]]:
    """Return (index, row) by image id; raise ResultError for an unknown image or a second row of an image."""
    rows: dict[int | str, tuple[int, dict[str, Any]]] = {}
    for index, row in enumerate(results):
        problem = missing_field_problem(row, "image_id") or id_problem("image", row["image_id"], image_ids)
        if problem is None and row["image_id"] in rows:
            problem = Problem("duplicate-result", "is the second result of its image")
        if problem is not None:
            raise ResultError.of(index, row, problem)
        rows[row["image_id"]] = index, row
    return rows


def _count_image(
    truth: PanopticSegmentation, predicted: PanopticSegmentation | None, counts: Sequence[ClassCounts]
) -> int:
    """Add the segments of one image to the counts of their classes; return the number of ignored predictions."""
    if predicted is None:
        for segment in truth.segments:
            counts[segment.label].false_negatives += not segment.crowd
        return 0
    overlaps = _overlaps(truth, predicted)
    void, true_areas, areas = overlaps[0, 1:], overlaps[1:].sum(axis=1), overlaps[:, 1:].sum(axis=0)
    matched: set[int] = set()
    for row, segment in enumerate(truth.segments):
        if segment.crowd:
            continue
        unions = true_areas[row] + areas - overlaps[row + 1, 1:] - void
        ious = overlaps[row + 1, 1:] / unions
        columns = [
            column for column in np.flatnonzero(ious > MIN_IOU).tolist()
            if predicted.segments[column].label == segment.label
        ]  # fmt: skip
        counts[segment.label].false_negatives += not columns
        counts[segment.label].ious += ious[columns].tolist()
        matched.update(columns)
    # If a class has several crowds in an image, only the last one counts, as in panopticapi.
    crowd_rows = {segment.label: row + 1 for row, segment in enumerate(truth.segments) if segment.crowd}
    ignored = 0
    for column, segment in enumerate(predicted.segments):
        if column in matched:
            continue
        crowd_row = crowd_rows.get(segment.label)
        ignorable = void[column] + (0 if crowd_row is None else overlaps[crowd_row, column + 1])
        is_ignored = bool(ignorable / areas[column] > MAX_IGNORED)
        counts[segment.label].false_positives += not is_ignored
        ignored += is_ignored
    return ignored


def _overlaps(truth: PanopticSegmentation, predicted: PanopticSegmentation) -> Int64[ndarray, "t p"]:
    """Return the number of pixels shared by each true and each predicted segment; index 0 is void on both axes."""
    indices = [_segment_indices(segmentation) for segmentation in (truth, predicted)]
    size = len(truth) + 1, len(predicted) + 1
    return np.bincount(indices[0] * size[1] + indices[1], minlength=size[0] * size[1]).reshape(size)


def _segment_indices(segmentation: PanopticSegmentation) -> Int64[ndarray, " n"]:
    """Return the index of each pixel's segment in ``segments``, counted from 1; 0 for void."""
    ids = np.array([VOID, *(segment.id for segment in segmentation.segments)], np.int64)
    order = np.argsort(ids)
    return order[np.searchsorted(ids[order], segmentation.ids.cpu().numpy().ravel())]
