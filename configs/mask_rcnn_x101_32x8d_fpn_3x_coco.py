"""Mask R-CNN, ResNeXt-101-32x8d-FPN, COCO, 3x schedule (36 epochs).

    python tools/train.py configs/mask_rcnn_x101_32x8d_fpn_3x_coco.py

detectron2's recipe; detectron2 publishes box AP 44.3 and mask AP 39.5 on val2017 (8 V100, 0.69 s per step, 7.2 GB per
GPU). Not yet run by us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.mask_rcnn_r50_fpn_1x_coco import THREE_TIMES, mask_rcnn_coco

CONFIG = mask_rcnn_coco(
    "mask_rcnn_x101_32x8d_fpn_3x_coco",
    ResNetConfig(name="resnext101_32x8d", norm="frozen", freeze_at=2),
    "torchvision/ResNeXt101_32X8D_Weights.IMAGENET1K_V1",
    THREE_TIMES,
)
