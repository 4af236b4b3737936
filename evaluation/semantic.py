"""Semantic segmentation: results rows in COCO-stuff's format, and IoU and accuracy."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray
from torch import Tensor

from ..formats.checks import KnownIds, Problem, id_problem
from ..formats.results import GROUND_TRUTH, ResultError, mask_problem, missing_field_problem
from ..formats.rle import decode_label_map, decode_mask, encode_mask
from ..structures import IGNORE
from .confusion import ConfusionMatrix
from .scores import Scores

ClassMap = UInt8[ndarray, "h w"]
IndexedRows = Sequence[tuple[int, dict[str, Any]]]


def to_semantic_results(
    label_map: UInt8[Tensor, "h w"], image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the label map of one image, at its original size, as results: one row with an RLE mask per class.

    ``category_ids`` holds the category id of each label in the annotation file.
    """
    labels = np.asfortranarray(label_map.cpu().numpy())  # column-major like RLE
    return [
        {"image_id": image_id, "category_id": category_ids[label], "segmentation": encode_mask(labels == label)}
        for label in np.flatnonzero(np.bincount(labels.ravel())).tolist()
    ]


def evaluate_semantic(
    ground_truth: Mapping[Any, ClassMap],
    results: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    category_ids: Sequence[int],
) -> Scores:
    """Score rows of :func:`to_semantic_results` against the label map of every image by its id.

    Pixels that are 255 in the ground truth are ignored. Pixels that no row covers, and images without rows, count as
    wrong. The mean IoU is over the classes that occur in the ground truth or in a prediction, as in mmsegmentation; the
    mean accuracy is over the classes in the ground truth. ``frequency_weighted_iou`` weights classes by their
    fractions of the ground-truth pixels. Raises ResultError for an invalid row.
    """
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    rows = _rows_by_image(results, KnownIds.of(ground_truth, GROUND_TRUTH), KnownIds.of(labels, GROUND_TRUTH))
    matrix = ConfusionMatrix.empty(len(class_names))
    ignored = 0
    for image_id, true_map in ground_truth.items():
        predicted = _label_map(rows.get(image_id, []), true_map.shape, labels)
        matrix += ConfusionMatrix.of(true_map, predicted, len(class_names))
        ignored += int((true_map == IGNORE).sum())
    counts = {
        "images": len(ground_truth),
        "images_without_result": len(ground_truth) - len(rows),
        "pixels": int(matrix.counts.sum()),
        "pixels_without_prediction": int(matrix.counts[:, -1].sum()),
        "ignored_pixels": ignored,
    }
    ious = _ratios(matrix.hits, matrix.unions)
    return Scores(_summarize(matrix), dict(zip(class_names, ious, strict=True)), counts)


def _summarize(matrix: ConfusionMatrix) -> dict[str, float | None]:
    pixels = int(matrix.true_pixels.sum())
    ious = _ratios(matrix.hits, matrix.unions)
    weighted = sum(count * (iou or 0.0) for count, iou in zip(matrix.true_pixels.tolist(), ious, strict=True))
    return {
        "mIoU": _mean(ious),
        "pixel_accuracy": int(matrix.hits.sum()) / pixels if pixels else None,
        "mean_accuracy": _mean(_ratios(matrix.hits, matrix.true_pixels)),
        "frequency_weighted_iou": weighted / pixels if pixels else None,
    }


def _ratios(parts: Int64[ndarray, " k"], totals: Int64[ndarray, " k"]) -> list[float | None]:
    """Return ``parts / totals`` elementwise; None where the total is 0."""
    return [part / total if total else None for part, total in zip(parts.tolist(), totals.tolist(), strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def _rows_by_image(
    results: Sequence[dict[str, Any]], image_ids: KnownIds, category_ids: KnownIds
) -> dict[int | str, list[tuple[int, dict[str, Any]]]]:
    """Return the rows of each image as (index, row).

    Raises ResultError for an unknown image or category, and for a second row of the same image and category.
    """
    rows = defaultdict(list)
    seen: dict[tuple, int] = {}
    for index, row in enumerate(results):
        problem = _row_problem(row, image_ids, category_ids)
        if problem is None:
            first = seen.setdefault((row["image_id"], row["category_id"]), index)
            if first == index:
                rows[row["image_id"]].append((index, row))
                continue
            problem = Problem("duplicate-result", f"has the same image and category as entry {first}")
        raise ResultError.of(index, row, problem)
    return rows


def _row_problem(row: dict[str, Any], image_ids: KnownIds, category_ids: KnownIds) -> Problem | None:
    """Return what is wrong with a row, except for its mask; None if it is valid."""
    problem = missing_field_problem(row, "image_id", "category_id", "segmentation")
    if problem is not None:
        return problem
    return id_problem("image", row["image_id"], image_ids) or id_problem("category", row["category_id"], category_ids)


def _label_map(rows: IndexedRows, size: tuple[int, int], labels: Mapping[int, int]) -> ClassMap:
    """Combine the rows of one image to a label map; 255 where no row covers a pixel.

    Raises ResultError for an invalid mask, or if masks overlap.
    """
    masks = [row["segmentation"] for _, row in rows]
    decoded = decode_label_map(masks, [labels[row["category_id"]] for _, row in rows], size, fill=IGNORE)
    if decoded is not None:
        return decoded
    label_map = np.full(size, IGNORE, np.uint8)  # one by one, to name the invalid row
    for index, row in rows:
        problem = mask_problem(row["segmentation"], size)
        if problem is not None:
            raise ResultError.of(index, row, problem)
        mask = decode_mask(row["segmentation"]).astype(bool)
        overlap = int((label_map[mask] != IGNORE).sum())
        if overlap:
            fault = f"covers {overlap} pixels that another class covers too"
            raise ResultError.of(index, row, Problem("overlapping-classes", fault))
        label_map[mask] = labels[row["category_id"]]
    return label_map
