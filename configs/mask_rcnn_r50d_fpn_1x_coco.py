"""Mask R-CNN, ResNet-50-D-FPN, COCO, 1x schedule (12 epochs).

    python tools/train.py configs/mask_rcnn_r50d_fpn_1x_coco.py

The recipe of `mask_rcnn_r50_fpn_1x_coco` with the deep stem and average-pooled shortcuts of 1812.01187, and timm's
weights. detectron2 publishes box AP 38.6 and mask AP 35.2 for that config. In mmdetection better pretrained weights
alone gained 3 points of box AP, with a learning rate and weight decay tuned for them. Not yet run by us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.mask_rcnn_r50_fpn_1x_coco import mask_rcnn_coco

CONFIG = mask_rcnn_coco(
    "mask_rcnn_r50d_fpn_1x_coco",
    ResNetConfig(name="resnet50d", norm="frozen", freeze_at=2),
    "timm",
)
