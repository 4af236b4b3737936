"""What results must be before an evaluation engine sees them.

A NaN score or box counts as a perfect detection in pycocotools, and an unknown category is dropped without a word.
"""

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

from ..formats.rle import rle_problem
from ..structures import DataError, is_number

FIX_RESULTS = "correct the results, or give the ground truth that they are about"
Fault = tuple[str, str]
"""The case and the description of what is wrong with an entry."""


class ResultError(DataError):
    """An entry of results that cannot be scored. It tells the file once whoever read the entries there adds it."""

    @classmethod
    def of(cls, index: int, entry: Any, fault: Fault) -> "ResultError":
        """The error of the entry at this place."""
        case, what = fault
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        return cls(
            f"entry {index} {what}", FIX_RESULTS, case=case,
            image_id=image_id if isinstance(image_id, int | str) else None,
        )  # fmt: skip


def check_results(results: Sequence[dict[str, Any]], ground_truth: dict[str, Any]) -> None:
    """ResultError naming the image and index of the first entry that cannot be scored.

    An entry has an ``image_id`` and ``category_id`` of the ground truth, a finite ``score``, and a ``bbox``
    (x, y, width, height) or a ``segmentation`` (compressed run lengths); no two entries are the same.
    """
    image_ids = {image["id"] for image in ground_truth["images"]}
    category_ids = {category["id"] for category in ground_truth["categories"]}
    seen: dict[tuple, int] = {}
    for index, entry in enumerate(results):
        fault = _entry_fault(entry, image_ids, category_ids)
        if fault is None:
            first = seen.setdefault(_identity(entry), index)
            if first == index:
                continue
            fault = "duplicate-result", f"is the same as entry {first}"
        raise ResultError.of(index, entry, fault)


def _entry_fault(entry: dict[str, Any], image_ids: Set[int | str], category_ids: Set[int | str]) -> Fault | None:
    """What is wrong with one entry, if anything."""
    shape = "segmentation" if "segmentation" in entry else "bbox"
    return (
        missing_field_problem(entry, "image_id", "category_id", "score", shape)
        or id_problem("image", entry["image_id"], image_ids)
        or id_problem("category", entry["category_id"], category_ids)
        or _score_fault(entry["score"])
        or ("bbox" in entry and box_problem(entry["bbox"]))
        or ("segmentation" in entry and mask_problem(entry["segmentation"]))
        or None
    )


def missing_field_problem(entry: Mapping[str, Any], *keys: str) -> Fault | None:
    """Which of these fields are not there, if any."""
    missing = [key for key in keys if key not in entry]
    return ("bad-results", f"has no {' and no '.join(missing)}") if missing else None


def id_problem(kind: str, identity: Any, known: Set[int | str]) -> Fault | None:
    """What is wrong with an id, if anything."""
    # 1.0 and True are found in a set that holds 1, but are no ids.
    if type(identity) in (int, str) and identity in known:
        return None
    kinds = {type(other) for other in known}
    if known and type(identity) not in kinds:
        expected = " or ".join(sorted(kind.__name__ for kind in kinds))
        return f"{kind}-id-type", (
            f"has the {kind} id {identity!r}, type mismatch: {type(identity).__name__}, "
            f"where the ground truth has {expected}"
        )
    return f"unknown-{kind}", f"is about {kind} {identity!r}, which is not in the ground truth"


def _score_fault(score: Any) -> Fault | None:
    if not is_number(score):
        return "bad-score", f"has the score {score!r}, which is {type(score).__name__}, not a number"
    if not math.isfinite(score):
        return "bad-score", f"has the score {score}"
    return None


def box_problem(box: Any) -> Fault | None:
    """What is wrong with an (x, y, width, height), if anything."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)):
        return "bad-box", f"has the box {box!r:.80}, which is not four numbers"
    if not all(map(math.isfinite, box)):
        return "bad-box", f"has the box {box}, which is not finite"
    if box[2] < 0 or box[3] < 0:
        return "bad-box", f"has the box {box}, whose width or height is negative (x, y, width, height is expected)"
    return None


def area_problem(area: Any) -> Fault | None:
    """What is wrong with an area, if anything."""
    if is_number(area) and 0 <= area < math.inf:
        return None
    return "bad-area", f"has the area {area!r:.80}, which is not a finite number of 0 or more"


def crowd_problem(crowd: Any) -> Fault | None:
    """What is wrong with an ``iscrowd``, if anything: text is true to Python, whatever it says."""
    if isinstance(crowd, int) and crowd in (0, 1):
        return None
    return "bad-crowd", f"has the iscrowd {crowd!r:.80}, which is neither 0 nor 1"


def mask_problem(mask: Any, size: tuple[int, int] | None = None) -> Fault | None:
    """What is wrong with a mask, if anything; ``size`` is its image's (height, width)."""
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str | bytes) or "size" not in mask:
        return "bad-mask", f"has the segmentation {mask!r:.80}, which is not compressed run lengths (size and counts)"
    fault = rle_problem(mask, size)
    return None if fault is None else ("bad-mask", f"has a segmentation that {fault}")


def _identity(entry: dict[str, Any]) -> tuple:
    """What makes two entries the same detection."""
    mask = entry.get("segmentation")
    return (
        entry["image_id"],
        entry["category_id"],
        entry["score"],
        tuple(entry.get("bbox", ())),
        None if mask is None else mask["counts"],
    )
