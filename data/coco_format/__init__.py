"""Data sets in COCO's format: objects with boxes and masks, or class maps made from the masks."""

from .annotations import CocoAnnotations
from .detection import CocoDataset
from .keypoints import CocoKeypointsConfig
from .opening import CocoConfig
from .panoptic import CocoPanoptic
from .panoptic_opening import CocoPanopticConfig
from .semantic import CocoSemantic, CocoSemanticConfig

__all__ = [
    "CocoAnnotations",
    "CocoConfig",
    "CocoDataset",
    "CocoKeypointsConfig",
    "CocoPanoptic",
    "CocoPanopticConfig",
    "CocoSemantic",
    "CocoSemanticConfig",
]
