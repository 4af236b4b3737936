"""Detections as COCO results: dicts with the ids of the annotation file and boxes (x, y, width, height) in pixels."""

from collections.abc import Sequence
from typing import Any

import torch
from hotcoco import mask as rle

from ..ops import paste_masks
from ..structures import Detections


def to_coco_results(detections: Detections, image_id: int | str, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """The detections of one image, in its original frame; ``category_ids`` holds the file's own id of each label."""
    corners = detections.boxes.cpu().double()
    boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    results: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for label, box, score in zip(
            detections.labels.tolist(), boxes.tolist(), detections.scores.tolist(), strict=True
        )
    ]
    if detections.masks is not None:
        for index, result in enumerate(results):  # one by one: all of them on a large photo would fill the memory
            own = slice(index, index + 1)
            mask = paste_masks(detections.masks[own], detections.boxes[own])[0].cpu().numpy()
            encoded = rle.encode(mask)
            result["segmentation"] = {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
    return results
