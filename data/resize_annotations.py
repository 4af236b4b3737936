"""The ground truth of an image, in an image of another size."""

from dataclasses import replace

from .object_fields import resize_nearest
from .types import Record


def resize_annotations(record: Record, before: tuple[int, int], after: tuple[int, int]) -> Record:
    """Return the record with its ground truth brought from an image of one (height, width) to one of another."""
    return replace(
        record,
        objects=None if record.objects is None else record.objects.resize(before, after),
        semantic=None if record.semantic is None else resize_nearest(record.semantic, after),
    )
