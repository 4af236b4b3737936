"""COCO's format: checked annotations, as objects with boxes and masks or as maps of classes."""

from .annotations import CocoAnnotations, read_annotations
from .detection import CocoConfig, CocoDataset
from .names import COCO_CLASSES
from .semantic import CocoSemantic, CocoSemanticConfig

__all__ = [
    "COCO_CLASSES",
    "CocoAnnotations",
    "CocoConfig",
    "CocoDataset",
    "CocoSemantic",
    "CocoSemanticConfig",
    "read_annotations",
]
