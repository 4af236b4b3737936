"""Data sets in COCO's format: objects with boxes and masks, or class maps made from the masks."""

from .annotations import CocoAnnotations
from .detection import CocoDataset
from .keypoints import CocoKeypointsConfig
from .opening import CocoConfig, ObjectsConfig
from .panoptic import CocoPanoptic
from .panoptic_opening import CocoPanopticConfig
from .semantic import CocoSemantic, CocoSemanticConfig, ObjectsSemanticConfig

__all__ = [
    "CocoAnnotations",
    "CocoConfig",
    "CocoDataset",
    "CocoKeypointsConfig",
    "CocoPanoptic",
    "CocoPanopticConfig",
    "CocoSemantic",
    "CocoSemanticConfig",
    "ObjectsConfig",
    "ObjectsSemanticConfig",
]
