"""Resizing of the annotations of an image."""

from dataclasses import replace

from .object_fields import resize_nearest
from .types import Record


def resize_annotations(record: Record, before: tuple[int, int], after: tuple[int, int]) -> Record:
    """Resize the objects and the semantic map of a record from ``before`` to ``after``, both (height, width)."""
    return replace(
        record,
        objects=None if record.objects is None else record.objects.resize(before, after),
        semantic=None if record.semantic is None else resize_nearest(record.semantic, after),
    )
