"""Mask R-CNN, ResNet-101-FPN, COCO, 3x schedule (36 epochs).

    python tools/train.py configs/mask_rcnn_r101_fpn_3x_coco.py

detectron2's recipe; detectron2 publishes box AP 42.9 and mask AP 38.6 on val2017 (8 V100, 0.34 s per step, 4.6 GB per
GPU). Not yet run by us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.mask_rcnn_r50_fpn_1x_coco import THREE_TIMES, mask_rcnn_coco

CONFIG = mask_rcnn_coco(
    "mask_rcnn_r101_fpn_3x_coco",
    ResNetConfig(name="resnet101", norm="frozen", freeze_at=2),
    "torchvision/ResNet101_Weights.IMAGENET1K_V1",
    THREE_TIMES,
)
