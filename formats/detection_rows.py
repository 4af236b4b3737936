"""Detections as rows of COCO's results format."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..structures import Detections


def detection_rows(
    detections: Detections,
    masks: Iterable[dict[str, Any]] | None,
    image_id: int | str,
    category_ids: Sequence[int],
    keypoint_offset: float = 0.0,
) -> list[dict[str, Any]]:
    """Return the detections of one image as COCO results, with their ``masks``, encoded as RLE, and their keypoints.

    Boxes are (x, y, width, height) in pixels of the original image. Keypoints are a flat list of x, y, score, with
    ``keypoint_offset`` subtracted from x and y. ``category_ids`` holds the category id of each label in the annotation
    file.
    """
    corners = detections.boxes.cpu().double()  # not every device has float64
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    rows: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for label, box, score in zip(
            detections.labels.tolist(), boxes.tolist(), detections.scores.tolist(), strict=True
        )
    ]
    if masks is not None:
        for row, mask in zip(rows, masks, strict=True):
            row["segmentation"] = mask
    if detections.keypoints is not None:
        keypoints = detections.keypoints.cpu().double()
        keypoints[..., :2] -= keypoint_offset
        for row, values in zip(rows, keypoints.flatten(1).tolist(), strict=True):
            row["keypoints"] = values
    return rows
