"""The checks of data. A new check is one function and its entry in one of the tables below."""

from collections.abc import Callable, Iterable

from ..findings import Finding
from ..splits import ExaminedData
from .boxes import check_areas, check_elongated_boxes, check_repeated_objects, check_written_boxes
from .classes import check_class_counts, check_class_names, check_label_offset
from .cost import estimate_training
from .images import Facts, check_appearance, check_copies, check_readable_images
from .semantic import check_class_maps
from .sizes import check_fit_to_model, check_image_shapes, check_object_sizes

Check = Callable[[ExaminedData], Iterable[Finding]]
"""A check yields a finding for each fault of each split."""

OBJECT_CHECKS: tuple[Check, ...] = (
    check_class_names,
    check_class_counts,
    check_label_offset,
    check_repeated_objects,
    check_elongated_boxes,
    check_object_sizes,
    check_image_shapes,
    check_fit_to_model,
)
"""Checks of what opened data sets know: classes, boxes and sizes. They take a second for a million objects."""
SLOW_CHECKS: tuple[Check, ...] = (check_written_boxes, check_areas, estimate_training)
"""Checks that read the annotations again as they are written, or build the model."""
ImageCheck = Callable[[ExaminedData, Facts], Iterable[Finding]]
"""A check of the facts that one pass over all images gathers."""

IMAGE_CHECKS: tuple[ImageCheck, ...] = (check_readable_images, check_appearance, check_copies, check_class_maps)
