"""Merging of detections and a class map into a panoptic segmentation (1801.00868 section 5)."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ..structures import VOID, Detections, PanopticParts, PanopticSegmentation, Segment
from .paste import paste_masks_in_chunks
from .semantic import label_map


def merge_panoptic(prediction: PanopticParts, size: tuple[int, int]) -> PanopticSegmentation:
    """Merge the predictions of an image to a panoptic segmentation of ``size`` (height, width), usually the original.

    Objects are placed in order of descending score, without the pixels that are already taken. Then the remaining
    pixels are filled with the stuff classes of the class map.
    """
    detections = prediction.detections.to_original(prediction.semantic.size, size)
    classes = label_map(prediction.semantic, size)
    ids = torch.full(size, VOID, dtype=torch.int32, device=classes.device)
    segments: list[Segment] = []
    for mask, label, score in _sorted_masks(detections, prediction.rule.score_threshold):
        area, free = int(mask.sum()), mask & (ids == VOID)
        free_area = int(free.sum())
        if not free_area or (area - free_area) / area > prediction.rule.overlap_threshold:
            continue
        segments.append(Segment(len(segments) + 1, label, True, score))
        ids[free] = segments[-1].id
    for label, mask in _stuff_masks(classes, prediction.num_stuff):
        free = mask & (ids == VOID)
        if int(free.sum()) < max(prediction.rule.stuff_area, 1):
            continue
        segments.append(Segment(len(segments) + 1, prediction.num_things + label, False))
        ids[free] = segments[-1].id
    return PanopticSegmentation(ids, tuple(segments))


def _sorted_masks(detections: Detections, threshold: float) -> Iterator[tuple[Bool[Tensor, "h w"], int, float]]:
    """Yield (mask, label, score) of the objects that score at least ``threshold``, best first."""
    detections = detections[detections.scores.argsort(descending=True, stable=True)]
    detections = detections[detections.scores >= threshold]
    assert detections.masks is not None, "PanopticParts has checked it"
    masks = (mask for chunk in paste_masks_in_chunks(detections.masks, detections.boxes) for mask in chunk)
    yield from zip(masks, detections.labels.tolist(), detections.scores.tolist(), strict=True)


def _stuff_masks(classes: UInt8[Tensor, "h w"], num_stuff: int) -> Iterator[tuple[int, Bool[Tensor, "h w"]]]:
    """Yield (label, mask) of each stuff class in a class map."""
    for label in classes.unique().tolist():
        if label < num_stuff:
            yield label, classes == label
