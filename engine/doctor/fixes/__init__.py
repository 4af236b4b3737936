"""Corrections of annotations, each a function that changes a document and logs what it changed."""

from collections.abc import Callable

from .document import Document
from .entries import correct_classes, correct_forms, correct_ids, remove_leaked_images, remove_repeated_images
from .images import correct_images
from .objects import (
    correct_areas,
    correct_boxes,
    correct_conventions,
    correct_polygons,
    ignore_unmasked,
    remove_repeated_objects,
)

STEPS: tuple[Callable[[Document], None], ...] = (
    correct_forms,
    correct_classes,
    correct_images,
    correct_ids,
    correct_polygons,
    correct_conventions,
    correct_boxes,
    ignore_unmasked,
    correct_areas,
    remove_repeated_objects,
    remove_repeated_images,
)
"""The corrections of one split, in their order: each can rely on those before it."""

__all__ = ["STEPS", "Document", "remove_leaked_images"]
