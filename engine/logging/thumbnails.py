"""A record as small as a picture for people need be."""

from dataclasses import replace

import cv2

from ...data import Record, resize_annotations


def shrink_record(record: Record, longest: int) -> Record:
    """The record with its image, and all that is known of it, at most so many pixels long; a smaller one as it is."""
    height, width = record.image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return record
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = replace(record, image=cv2.resize(record.image, size[::-1], interpolation=cv2.INTER_AREA))
    return resize_annotations(small, (height, width), size)
