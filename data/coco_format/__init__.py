"""COCO's format: checked annotations, as objects with boxes and masks or as maps of classes."""

from .annotations import CocoAnnotations
from .categories import COCO_CLASSES
from .detection import CocoDataset
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
