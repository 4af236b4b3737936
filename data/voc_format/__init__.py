"""PASCAL VOC's layout: boxes from XML, maps of classes from PNG, and the lists of both."""

from .detection import VocConfig, VocDetection
from .folder import BACKGROUND, VOC_CLASSES
from .segmentation import VocSegmentation, VocSegmentationConfig

__all__ = ["BACKGROUND", "VOC_CLASSES", "VocConfig", "VocDetection", "VocSegmentation", "VocSegmentationConfig"]
