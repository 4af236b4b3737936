"""Mask R-CNN, ResNet-18-FPN, overfitting 16 COCO images from scratch.

    python tools/train.py configs/mask_rcnn_r18_fpn_tiny_coco.py

`faster_rcnn_r18_fpn_tiny_coco` with a mask branch: the same sanity check for polygons, mask targets and pasting. It
reached mask AP 62.6 (AP50 88.7, boundary AP 53.2) and box AP 88.9 on the 16 images after 700 steps, 36 minutes of CPU
time; mask AP 32.2 and box AP 46.0 after 250 steps, 58.9 and 81.7 after 500.
"""

from vertebra.configs.faster_rcnn_r18_fpn_tiny_coco import tiny_coco
from vertebra.heads import MaskBranchConfig

CONFIG = tiny_coco("mask_rcnn_r18_fpn_tiny_coco", MaskBranchConfig(convolutions=(64, 64)))
