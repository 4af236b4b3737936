"""Annotations and results as columns: checked, renumbered, and with the fields that are scored.

numpy checks all entries at once. Only if that fails are they checked one by one, to name the first invalid one.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from ..formats.checks import KnownIds, Problem, area_problem, box_problem, crowd_problem, id_problem, keypoints_problem
from ..formats.columns import box_column, index_column, number_column
from ..formats.results import GROUND_TRUTH, ResultError
from ..formats.rle import encode_segmentation, mask_areas, mask_sizes
from ..formats.segmentations import are_valid_segmentations, segmentation_problem
from ..structures import DataError
from .keypoints import predicted_keypoints

Sizes = Mapping[int | str, tuple[int, int]]
"""(height, width) by image id; empty if boxes or keypoints are scored, since these need no sizes."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Annotations or detections, one per row, as an array for each field; a field that is not scored is None."""

    images: Int64[ndarray, " n"]
    """The new number of each image, from 1."""
    categories: Int64[ndarray, " n"]
    """The new number of each category, from 1."""
    areas: Float64[ndarray, " n"]
    crowd: Int64[ndarray, " n"]
    boxes: Float64[ndarray, "n 4"] | None = None
    """x, y, width, height."""
    masks: Sequence[Any] | None = None
    """Polygons or RLE."""
    keypoints: Sequence[Sequence[Any]] | None = None
    """x, y, and visibility or score, of all keypoints of a row."""
    scores: Float64[ndarray, " n"] | None = None
    """None for annotations."""

    def entries(self) -> list[dict[str, Any]]:
        """Return the rows as the ``annotations`` of a COCO data set, with ids from 1."""
        columns: dict[str, Sequence[Any] | None] = {
            "id": range(1, len(self.images) + 1),
            "image_id": self.images.tolist(),
            "category_id": self.categories.tolist(),
            "bbox": None if self.boxes is None else self.boxes.tolist(),
            "segmentation": self.masks,
            "keypoints": self.keypoints,
            "area": self.areas.tolist(),
            "iscrowd": self.crowd.tolist(),
            "score": None if self.scores is None else self.scores.tolist(),
        }
        if self.keypoints is not None:
            columns["num_keypoints"] = [sum(visible > 0 for visible in row[2::3]) for row in self.keypoints]
        present = {name: column for name, column in columns.items() if column is not None}
        return [dict(zip(present, row, strict=True)) for row in zip(*present.values(), strict=True)]


@dataclass(frozen=True, slots=True)
class IdNumbers:
    """The numbers 1, 2, ... that replace ids, and what else is needed to check annotations and results."""

    images: Mapping[int | str, int]
    """The new number of each image."""
    all_categories: Mapping[int | str, int]
    """The new number of each category, including those that are not scored."""
    categories: Mapping[int | str, int]
    """The new number of each category that is scored."""
    sizes: Sizes
    keypoints: int
    """The number of keypoints; 0 if they are not scored."""

    def of_entries(self, entries: Sequence[Mapping[str, Any]]) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"]]:
        """Return the image and category numbers of entries with known ids."""
        images = [self.images[entry["image_id"]] for entry in entries]
        categories = [self.categories[entry["category_id"]] for entry in entries]
        return np.array(images, np.int64), np.array(categories, np.int64)

    def sizes_of(self, entries: Sequence[Mapping[str, Any]]) -> Int64[ndarray, "n 2"]:
        """Return the (height, width) of the image of each entry."""
        return np.array([self.sizes[entry["image_id"]] for entry in entries], np.int64).reshape(-1, 2)


def read_annotation_columns(annotations: Sequence[dict[str, Any]], numbers: IdNumbers) -> Columns:
    """Check annotations and return those of the scored categories; raise DataError for the first invalid one.

    The masks are used if there are image sizes, otherwise the boxes. A missing area, which decides between small,
    medium and large, is computed from this mask or box, as for results. Missing keypoints count as not labeled.
    """
    if not _are_surely_valid(annotations, numbers):
        _check_one_by_one(annotations, numbers)
    scored = [entry for entry in annotations if entry["category_id"] in numbers.categories]
    boxes = None if numbers.sizes else _boxes_of(scored)
    areas = [entry.get("area") for entry in scored]
    for row in [row for row, area in enumerate(areas) if area is None]:
        entry = scored[row]
        if boxes is None:
            areas[row] = mask_areas([encode_segmentation(entry["segmentation"], numbers.sizes[entry["image_id"]])])[0]
        else:
            areas[row] = boxes[row, 2] * boxes[row, 3]
    return Columns(
        *numbers.of_entries(scored),
        np.array(areas, np.float64),
        np.array([int(entry.get("iscrowd", 0)) for entry in scored], np.int64),
        boxes,
        [entry["segmentation"] for entry in scored] if numbers.sizes else None,
        _labeled_keypoints(scored, numbers.keypoints),
    )


def _labeled_keypoints(annotations: Sequence[dict[str, Any]], count: int) -> Sequence[Sequence[Any]] | None:
    """Return the ``count`` keypoints of each annotation, zeros if it has none; None if ``count`` is 0."""
    return [entry.get("keypoints") or [0] * (3 * count) for entry in annotations] if count else None


def read_result_columns(
    results: Sequence[dict[str, Any]], numbers: IdNumbers, pixels: Int64[ndarray, " n"] | None
) -> Columns:
    """Return the results of the scored categories, which must have passed ``check_results``.

    The area is that of the mask if masks are scored, even if a result also has a box, which is larger. ``pixels`` has
    the areas of the masks of all results, if they are known; with masks, all categories are scored. Raises ResultError
    for a result without the box, mask or keypoints that are scored.
    """
    scored = [result for result in results if result["category_id"] in numbers.categories]
    if not _have_shapes(scored, numbers):
        for index, result in enumerate(results):
            if result["category_id"] not in numbers.categories:
                continue
            problem = _shape_problem(result, numbers.sizes.get(result["image_id"]), numbers.keypoints)
            if problem is not None:
                raise ResultError.of(index, result, problem)
    boxes = masks = keypoints = None
    if numbers.keypoints:
        rows = [predicted_keypoints(result) for result in scored]
        boxes, keypoints = _boxes_of(rows), [row["keypoints"] for row in rows]
        areas = _box_areas(boxes)
    elif numbers.sizes:
        masks = _as_text([result["segmentation"] for result in scored])
        areas = mask_areas(masks) if pixels is None else pixels
    else:
        boxes = _boxes_of(scored)
        areas = _box_areas(boxes)
    scores = np.array([result["score"] for result in scored], np.float64)
    crowd = np.zeros(len(scored), np.int64)
    return Columns(*numbers.of_entries(scored), areas.astype(np.float64), crowd, boxes, masks, keypoints, scores)


def _boxes_of(entries: Sequence[Mapping[str, Any]]) -> Float64[ndarray, "n 4"]:
    """Return the boxes of entries that have been checked."""
    numbers = list(itertools.chain.from_iterable(entry["bbox"] for entry in entries))
    return np.array(numbers, np.float64).reshape(-1, 4)


def _box_areas(boxes: Float64[ndarray, "n 4"]) -> Float64[ndarray, " n"]:
    return boxes[:, 2] * boxes[:, 3]


def _as_text(masks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return masks in RLE with their ``counts`` as ``str``."""
    if not any(isinstance(mask["counts"], bytes) for mask in masks):
        return masks
    texts = [str(mask["counts"], "ascii") if isinstance(mask["counts"], bytes) else mask["counts"] for mask in masks]
    return [{"size": mask["size"], "counts": text} for mask, text in zip(masks, texts, strict=True)]


def _have_shapes(results: Sequence[dict[str, Any]], numbers: IdNumbers) -> bool:
    """Return whether all results certainly have the box or mask that is scored; False also if it is not known."""
    if numbers.keypoints:
        return False
    if not numbers.sizes:
        return all("bbox" in result for result in results)
    sizes = mask_sizes([result.get("segmentation") for result in results])
    return sizes is not None and np.array_equal(sizes, numbers.sizes_of(results))


def _are_surely_valid(annotations: Sequence[dict[str, Any]], numbers: IdNumbers) -> bool:
    """Check all annotations at once; False means that they have to be checked one by one."""
    if numbers.keypoints:
        return False
    crowd = [entry.get("iscrowd", 0) for entry in annotations]
    areas = number_column([0 if entry.get("area") is None else entry["area"] for entry in annotations])
    if (
        index_column([entry.get("image_id") for entry in annotations], numbers.images) is None
        or index_column([entry.get("category_id") for entry in annotations], numbers.all_categories) is None
        or not (set(map(type, crowd)) <= {int, bool} and set(crowd) <= {0, 1})
        or areas is None
        or (areas < 0).any()
    ):
        return False
    if numbers.sizes:
        masks = [entry.get("segmentation") for entry in annotations]
        return are_valid_segmentations(masks, numbers.sizes_of(annotations))
    return box_column([entry.get("bbox") for entry in annotations]) is not None


def _check_one_by_one(annotations: Sequence[dict[str, Any]], numbers: IdNumbers) -> None:
    """Raise DataError for the first invalid annotation."""
    known = KnownIds.of(numbers.images, GROUND_TRUTH), KnownIds.of(numbers.all_categories, GROUND_TRUTH)
    for row, annotation in enumerate(annotations):
        problem = _annotation_problem(annotation, *known)
        if problem is None and annotation["category_id"] in numbers.categories:
            problem = _truth_problem(annotation, numbers.sizes, numbers.keypoints)
        if problem is not None:
            raise _annotation_error(row, annotation, problem)


def _annotation_problem(annotation: dict[str, Any], image_ids: KnownIds, category_ids: KnownIds) -> Problem | None:
    """Check the ids of an annotation, its crowd flag and its area; return None if they are valid."""
    return (
        id_problem("image", annotation.get("image_id"), image_ids)
        or id_problem("category", annotation.get("category_id"), category_ids)
        or crowd_problem(annotation.get("iscrowd", 0))
        or area_problem(annotation.get("area"))
    )


def _truth_problem(annotation: dict[str, Any], sizes: Sizes, keypoints: int) -> Problem | None:
    """Check the fields of an annotation that are scored; return None if they are valid.

    This is the mask if ``sizes`` is not empty, and otherwise the box. Keypoints are checked too if their number,
    ``keypoints``, is not 0.
    """
    if sizes:
        return segmentation_problem(annotation.get("segmentation"), sizes[annotation["image_id"]])
    box = box_problem(annotation.get("bbox"))
    if box is not None:
        return Problem("bad-box", box.what)
    if not keypoints:
        return None
    return keypoints_problem(annotation.get("keypoints"), annotation.get("num_keypoints"), keypoints)


def _annotation_error(row: int, annotation: dict[str, Any], problem: Problem) -> DataError:
    """Return the DataError for an annotation, naming its id, or its row if it has no id."""
    image_id, annotation_id = annotation.get("image_id"), annotation.get("id")
    return DataError(
        f"the annotation {problem.what}", "correct the annotations", case=problem.case,
        image_id=image_id if isinstance(image_id, int | str) else None,
        annotation_id=annotation_id if isinstance(annotation_id, int | str) else f"row {row}",
    )  # fmt: skip


def _shape_problem(result: dict[str, Any], size: tuple[int, int] | None, keypoints: int) -> Problem | None:
    """Return why a result cannot be scored; None if it can.

    It needs keypoints if their number, ``keypoints``, is not 0, else a mask if ``size`` is given, else a box.
    """
    if keypoints:
        count = len(result.get("keypoints", ())) // 3
        what = f"has {count} keypoints, but the ground truth has {keypoints}"
        return None if count == keypoints else Problem("no-shape", what)
    if size is None:
        return None if "bbox" in result else Problem("no-shape", "has no bbox to score")
    if "segmentation" not in result:
        return Problem("no-shape", "has no segmentation to score")
    mask_size = tuple(result["segmentation"]["size"])
    if mask_size == size:
        return None
    return Problem("no-shape", f"has a mask of size {list(mask_size)} in an image of size {list(size)} (height, width)")
