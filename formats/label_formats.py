"""The table of formats of annotations other than COCO's own and VOC's, by name."""

from .labels import LabelFormat
from .yolo import YOLO

LABEL_FORMATS: dict[str, LabelFormat] = {label_format.name: label_format for label_format in (YOLO,)}
"""A new format is a file in this folder that defines a :class:`LabelFormat`, and an entry."""
