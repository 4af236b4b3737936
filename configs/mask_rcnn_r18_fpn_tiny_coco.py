"""Mask R-CNN, ResNet-18-FPN, 16 photos of COCO learned by heart, from random weights.

    python tools/train.py configs/mask_rcnn_r18_fpn_tiny_coco.py

`faster_rcnn_r18_fpn_tiny_coco` with a mask branch: the same check for polygons, targets and pasting. Not yet run by us.
"""

from ..heads import MaskBranchConfig
from .faster_rcnn_r18_fpn_tiny_coco import tiny_coco

CONFIG = tiny_coco("mask_rcnn_r18_fpn_tiny_coco", MaskBranchConfig(convolutions=(64, 64)))
