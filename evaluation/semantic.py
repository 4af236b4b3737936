"""Maps of classes: their results, as COCO-stuff writes them, and how they agree with the truth."""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
from hotcoco import mask as rle
from jaxtyping import Int64, UInt8
from numpy import ndarray
from torch import Tensor

from ..structures import IGNORE
from .checks import Fault, ResultError, id_problem, mask_problem, missing_field_problem
from .confusion import ConfusionMatrix
from .scores import Scores

Map = UInt8[ndarray, "h w"]


def to_semantic_results(
    label_map: UInt8[Tensor, "h w"], image_id: int | str, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """The map of one image at its original size, a row for each class in it; ``category_ids`` holds the file's own
    id of each label."""
    labels = label_map.cpu().numpy()
    results = []
    for label in np.unique(labels).tolist():
        encoded: Any = rle.encode(labels == label)
        segmentation = {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
        results.append({"image_id": image_id, "category_id": category_ids[label], "segmentation": segmentation})
    return results


def evaluate_semantic(
    truth: Mapping[Any, Map],
    results: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    category_ids: Sequence[int],
) -> Scores:
    """Score rows of :func:`to_semantic_results` against the map of every image; ResultError for a bad row.

    Pixels that are 255 in the truth are left out; one that no row covers is a miss, and so is an image without rows.
    The mean IoU is over the classes that are in the truth or in the prediction of some image, as mmsegmentation takes
    it; the mean accuracy over those in the truth; the weights of ``frequency_weighted_iou`` are shares of the truth.
    """
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    rows = _rows_by_image(results, set(truth), set(labels))
    matrix = ConfusionMatrix.empty(len(class_names))
    ignored = 0
    for image_id, true_map in truth.items():
        predicted = _draw(rows.get(image_id, []), true_map.shape, labels)
        matrix += ConfusionMatrix.of(true_map, predicted, len(class_names))
        ignored += int((true_map == IGNORE).sum())
    counts = {
        "images": len(truth),
        "images_without_result": len(truth) - len(rows),
        "pixels": int(matrix.counts.sum()),
        "pixels_without_prediction": int(matrix.counts[:, -1].sum()),
        "ignored_pixels": ignored,
    }
    return Scores(_summarise(matrix), dict(zip(class_names, _shares(matrix.hits, matrix.unions), strict=True)), counts)


def _summarise(matrix: ConfusionMatrix) -> dict[str, float | None]:
    pixels = int(matrix.truths.sum())
    ious = _shares(matrix.hits, matrix.unions)
    weighted = sum(count * (iou or 0.0) for count, iou in zip(matrix.truths.tolist(), ious, strict=True))
    return {
        "mIoU": _mean(ious),
        "pixel_accuracy": int(matrix.hits.sum()) / pixels if pixels else None,
        "mean_accuracy": _mean(_shares(matrix.hits, matrix.truths)),
        "frequency_weighted_iou": weighted / pixels if pixels else None,
    }


def _shares(parts: Int64[ndarray, " k"], wholes: Int64[ndarray, " k"]) -> list[float | None]:
    """None where there is nothing to take a share of."""
    return [part / whole if whole else None for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def _rows_by_image(
    results: Sequence[dict[str, Any]], image_ids: Set[int | str], category_ids: Set[int]
) -> dict[int | str, list[tuple[int, dict[str, Any]]]]:
    """The rows of each image with their places; ResultError for one about nothing known, or the second of its class."""
    rows = defaultdict(list)
    seen: dict[tuple, int] = {}
    for index, row in enumerate(results):
        fault = _row_fault(row, image_ids, category_ids)
        if fault is None:
            first = seen.setdefault((row["image_id"], row["category_id"]), index)
            if first == index:
                rows[row["image_id"]].append((index, row))
                continue
            fault = "duplicate-result", f"is about the same image and category as entry {first}"
        raise ResultError.of(index, row, fault)
    return rows


def _row_fault(row: dict[str, Any], image_ids: Set[int | str], category_ids: Set[int]) -> Fault | None:
    """What is wrong with a row, its mask apart, if anything."""
    return (
        missing_field_problem(row, "image_id", "category_id", "segmentation")
        or id_problem("image", row["image_id"], image_ids)
        or id_problem("category", row["category_id"], category_ids)
    )


def _draw(rows: Sequence[tuple[int, dict[str, Any]]], size: tuple[int, int], labels: Mapping[int, int]) -> Map:
    """The map that the rows of one image make; ResultError for a mask that is broken or lies on another's pixels."""
    drawn = np.full(size, IGNORE, np.uint8)
    for index, row in rows:
        fault = mask_problem(row["segmentation"], size)
        if fault is not None:
            raise ResultError.of(index, row, fault)
        mask = rle.decode(row["segmentation"]).astype(bool)
        twice = int((drawn[mask] != IGNORE).sum())
        if twice:
            raise ResultError.of(
                index, row, ("overlapping-classes", f"covers {twice} pixels that another class covers")
            )
        drawn[mask] = labels[row["category_id"]]
    return drawn
