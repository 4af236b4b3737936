"""A record as small as a picture for people need be."""

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from ..data import Objects, Record


def shrink_record(record: Record, longest: int) -> Record:
    """The record with its image, and all that is known of it, at most so many pixels long; a smaller one as it is."""
    height, width = record.image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return record
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return replace(
        record,
        image=cv2.resize(record.image, size[::-1], interpolation=cv2.INTER_AREA),
        objects=None if record.objects is None else _shrink_objects(record.objects, (height, width), size),
        semantic=None if record.semantic is None else _shrink_map(record.semantic, size),
    )


def _shrink_objects(objects: Objects, before: tuple[int, int], after: tuple[int, int]) -> Objects:
    """From an image of one (height, width) to one of another."""
    factors = np.tile(np.array(after, np.float32) / np.array(before, np.float32), 2)[::-1]  # x, y, x, y
    masks, outlines = objects.masks, objects.outlines
    if masks is not None:
        small = np.zeros((len(masks), *after), np.uint8)
        for own, mask in zip(small, masks, strict=True):
            own[:] = _shrink_map(mask, after)
        masks = small
    if outlines is not None:
        outlines = tuple(replace(outline, edges=outline.edges * factors) for outline in outlines)
    return Objects(objects.boxes * factors, objects.labels, objects.ignored * factors, masks, outlines)


def _shrink_map(values: UInt8[ndarray, "_ _"], size: tuple[int, int]) -> UInt8[ndarray, "_ _"]:
    """Each pixel gets the value that is nearest to its centre."""
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
