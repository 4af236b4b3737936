"""Data sets in PASCAL VOC's layout: boxes from XML files, class maps from PNG files, and image lists."""

from .detection import VocConfig, VocDetection
from .folder import BACKGROUND, VOC_CLASSES
from .segmentation import VocSegmentation, VocSegmentationConfig

__all__ = ["BACKGROUND", "VOC_CLASSES", "VocConfig", "VocDetection", "VocSegmentation", "VocSegmentationConfig"]
