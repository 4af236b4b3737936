"""Data sets in COCO's format: objects with boxes and masks, or class maps made from the masks."""

from .annotations import CocoAnnotations
from .categories import COCO_CLASSES
from .detection import CocoDataset
from .keypoints import CocoKeypointsConfig
from .opening import CocoConfig
from .semantic import CocoSemantic, CocoSemanticConfig

__all__ = [
    "COCO_CLASSES",
    "CocoAnnotations",
    "CocoConfig",
    "CocoDataset",
    "CocoKeypointsConfig",
    "CocoSemantic",
    "CocoSemanticConfig",
]
