"""Mask R-CNN, ResNet-50-FPN, COCO, 3x schedule (36 epochs).

    python tools/train.py configs/mask_rcnn_r50_fpn_3x_coco.py

detectron2's recipe; detectron2 publishes box AP 41.0 and mask AP 37.2 on val2017 (8 V100, 0.26 s per step). Not yet run
by us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.mask_rcnn_r50_fpn_1x_coco import THREE_TIMES, mask_rcnn_coco

CONFIG = mask_rcnn_coco(
    "mask_rcnn_r50_fpn_3x_coco",
    ResNetConfig(name="resnet50", norm="frozen", freeze_at=2),
    "torchvision/ResNet50_Weights.IMAGENET1K_V1",
    THREE_TIMES,
)
