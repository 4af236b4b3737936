"""Mask R-CNN, ResNet-18-FPN, overfit on 16 COCO photos from random weights.

    python tools/train.py configs/mask_rcnn_r18_fpn_tiny_coco.py

`faster_rcnn_r18_fpn_tiny_coco` with a mask branch: the same check for polygons, mask targets and pasting. Mask AP 62.6
(AP50 88.7, boundary AP 53.2) and box AP 88.9 on the 16 photos after 36 minutes of CPU time; 32.2 and 46.0 after 250 of
the 700 steps, 58.9 and 81.7 after 500.
"""

from vertebra.configs.faster_rcnn_r18_fpn_tiny_coco import tiny_coco
from vertebra.heads import MaskBranchConfig

CONFIG = tiny_coco("mask_rcnn_r18_fpn_tiny_coco", MaskBranchConfig(convolutions=(64, 64)))
