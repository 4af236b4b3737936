"""Checks of detections in a results file: boxes, masks or keypoints with a category and a score.

pycocotools counts a NaN score or box as a perfect detection, and silently drops an unknown category. A results file may
have millions of detections, so they are checked all at once. Only if that fails are they checked one by one, to name
the first invalid one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from ..structures import is_number
from .checks import MAX_COORDINATE, KnownIds, Problem, box_problem, id_problem
from .columns import box_column, index_column, list_column, number_column, repeated_rows
from .results import FIX_IMAGES, GROUND_TRUTH, ResultError, mask_problem, missing_field_problem
from .rle import areas_if_valid

MOSTLY_UNKNOWN = 0.9
"""If at least this fraction of the image ids is unknown, the results are taken to belong to another data set."""


def check_results(results: Sequence[dict[str, Any]], ground_truth: dict[str, Any]) -> None:
    """Check detections against ground truth in COCO's format; raise ResultError for the first invalid entry.

    A valid entry has an ``image_id`` and ``category_id`` of the ground truth, a finite ``score``, and a ``bbox``
    (x, y, width, height), a ``segmentation`` (compressed RLE) or ``keypoints`` (a flat list of x, y, score). Two equal
    entries are an error.
    """
    checked_mask_areas(results, ground_truth)


def checked_mask_areas(results: Sequence[dict[str, Any]], ground_truth: dict[str, Any]) -> Int64[ndarray, " n"] | None:
    """Check detections as :func:`check_results`; return the number of pixels of their masks if these are known."""
    image_ids = KnownIds.of((image["id"] for image in ground_truth["images"]), GROUND_TRUTH)
    category_ids = KnownIds.of((category["id"] for category in ground_truth["categories"]), GROUND_TRUTH)
    columns = _read_columns(results, image_ids, category_ids)
    if columns is not None:
        return columns.get("segmentation")
    seen: dict[tuple, int] = {}
    for index, entry in enumerate(results):
        problem = _result_problem(entry, image_ids, category_ids)
        if problem is None:
            first = seen.setdefault(_comparison_key(entry), index)
            if first == index:
                continue
            problem = Problem("duplicate-result", f"is the same as entry {first}")
        if problem.case == "unknown-image":
            raise _unknown_image_error(index, results, problem, image_ids)
        raise ResultError.of(index, entry, problem)
    return None


def _read_columns(
    results: Sequence[dict[str, Any]], image_ids: KnownIds, category_ids: KnownIds
) -> dict[str, ndarray] | None:
    """Check all detections at once and return their fields; None if they have to be checked one by one."""
    keys = set(map(tuple, results))
    if len(keys) != 1:  # no detections, or with different fields
        return None if results else {}
    (fields,) = keys
    if not {"image_id", "category_id", "score"} <= set(fields) or not set(fields) & set(_SHAPE_COLUMNS):
        return None
    readers: dict[str, Callable[[Sequence[Any]], ndarray | None]] = {
        "image_id": lambda values: index_column(values, image_ids.indices()),
        "category_id": lambda values: index_column(values, category_ids.indices()),
        "score": number_column,
        **{field: read for field, read in _SHAPE_COLUMNS.items() if field in fields},
    }
    columns: dict[str, ndarray] = {}
    for field, read in readers.items():
        column = read([entry[field] for entry in results])
        if column is None:
            return None
        columns[field] = column
    compared = [part for field, column in columns.items() if field != "keypoints" for part in np.atleast_2d(column.T)]
    repeated = [_comparison_key(results[index]) for index in repeated_rows(compared).tolist()]
    return columns if len(set(repeated)) == len(repeated) else None


def _keypoint_column(values: Sequence[Any]) -> ndarray | None:
    """Return the keypoints of all detections as one flat array; None if they may be invalid."""
    column = list_column(values)
    return None if column is None or any(not row or len(row) % 3 for row in values) else column


_SHAPE_COLUMNS: Mapping[str, Callable[[Sequence[Any]], ndarray | None]] = {
    "segmentation": areas_if_valid,
    "keypoints": _keypoint_column,
    "bbox": box_column,
}
"""Checks of the fields of which a detection needs at least one; each returns None if a value may be invalid."""


def _unknown_image_error(
    index: int, results: Sequence[dict[str, Any]], problem: Problem, image_ids: KnownIds
) -> ResultError:
    """Return the error for an entry of an unknown image; it says how many images are known if they are few."""
    given = {str(entry.get("image_id")) for entry in results}
    known = len(given & {str(image_id) for image_id in image_ids.ids})
    if known > (1 - MOSTLY_UNKNOWN) * len(given):
        return ResultError.of(index, results[index], problem)
    what = f"{problem.what}; it has {known} of the {len(given)} images of the results"
    return ResultError.of(index, results[index], Problem(problem.case, what), FIX_IMAGES)


def _result_problem(entry: dict[str, Any], image_ids: KnownIds, category_ids: KnownIds) -> Problem | None:
    """Check one detection."""
    shape = next((field for field in ("segmentation", "keypoints") if field in entry), "bbox")
    problem = missing_field_problem(entry, "image_id", "category_id", "score", shape)
    if problem is not None:
        return problem
    problem = (
        id_problem("image", entry["image_id"], image_ids)
        or id_problem("category", entry["category_id"], category_ids)
        or _score_problem(entry["score"])
    )
    if problem is None and "bbox" in entry:
        problem = box_problem(entry["bbox"])
        problem = None if problem is None else Problem("bad-box", problem.what)
    if problem is None and "segmentation" in entry:
        problem = mask_problem(entry["segmentation"])
    if problem is None and "keypoints" in entry:
        problem = _keypoints_problem(entry["keypoints"])
    return problem


def _keypoints_problem(keypoints: Any) -> Problem | None:
    """Check predicted keypoints, except their number, which depends on the ground truth."""
    if not isinstance(keypoints, list) or not keypoints or len(keypoints) % 3 or not all(map(is_number, keypoints)):
        what = f"has the keypoints {keypoints!r:.80}, which are not a list of x, y and score of each keypoint"
        return Problem("bad-keypoints", what)
    if not all(map(math.isfinite, keypoints)):
        return Problem("bad-keypoints", "has keypoints that are not finite")
    if max(map(abs, keypoints)) >= MAX_COORDINATE:
        return Problem("bad-keypoints", "has keypoints beyond 2^63")
    return None


def _score_problem(score: Any) -> Problem | None:
    if not is_number(score):
        return Problem("bad-score", f"has the score {score!r}, which is {type(score).__name__}, not a number")
    if not math.isfinite(score):
        return Problem("bad-score", f"has the score {score}")
    return None


def _comparison_key(entry: dict[str, Any]) -> tuple:
    """Return a key that is equal for two entries with the same detection."""
    mask = entry.get("segmentation")
    return (
        entry["image_id"],
        entry["category_id"],
        entry["score"],
        tuple(entry.get("bbox", ())),
        None if mask is None else mask["counts"],
        tuple(entry.get("keypoints", ())),
    )
