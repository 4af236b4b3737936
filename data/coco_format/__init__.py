"""COCO's format: checked annotations, as objects with boxes and masks or as maps of classes."""

from .annotations import CocoAnnotations
from .detection import CocoDataset
from .names import COCO_CLASSES
from .opening import CocoConfig
from .semantic import CocoSemantic, CocoSemanticConfig

__all__ = [
    "COCO_CLASSES",
    "CocoAnnotations",
    "CocoConfig",
    "CocoDataset",
    "CocoSemantic",
    "CocoSemanticConfig",
]
