"""What is known of an image, in an image of another size."""

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from .types import Objects, Record


def resize_annotations(record: Record, before: tuple[int, int], after: tuple[int, int]) -> Record:
    """A record whose truth goes from an image of one (height, width) to one of another."""
    return replace(
        record,
        objects=None if record.objects is None else _resize_objects(record.objects, before, after),
        semantic=None if record.semantic is None else _resize_map(record.semantic, after),
    )


def _resize_objects(objects: Objects, before: tuple[int, int], after: tuple[int, int]) -> Objects:
    factors = np.tile(np.array(after, np.float32) / np.array(before, np.float32), 2)[::-1]  # x, y, x, y
    masks, polygon_masks = objects.masks, objects.polygon_masks
    if masks is not None:
        resized = np.zeros((len(masks), *after), np.uint8)
        for own, mask in zip(resized, masks, strict=True):
            own[:] = _resize_map(mask, after)
        masks = resized
    if polygon_masks is not None:
        polygon_masks = tuple(
            replace(polygon_mask, edges=polygon_mask.edges * factors) for polygon_mask in polygon_masks
        )
    return Objects(objects.boxes * factors, objects.labels, objects.ignored * factors, masks, polygon_masks)


def _resize_map(values: UInt8[ndarray, "_ _"], size: tuple[int, int]) -> UInt8[ndarray, "_ _"]:
    """Each pixel gets the value that is nearest to its centre."""
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
