"""Mask R-CNN, ResNet-50-FPN, COCO, from scratch with large-scale jitter, 100 epochs.

    python tools/train.py configs/mask_rcnn_r50_fpn_lsj_100e_coco.py

The recipe of detectron2's "new baselines" (2012.07177): crops of 1024 x 1024, 64 images per step, synchronized batch
norm in all parts, two convolutions in the RPN, four convolutions and one fully connected layer in the box branch.
detectron2 publishes box AP 44.6 and mask AP 40.3 on val2017 (64 V100, 0.38 s per step, half precision). Not yet run by
us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import COCO
from vertebra.data import COCO_CLASSES, CocoConfig, LoaderConfig, ResizeConfig, ScaledCropConfig
from vertebra.engine import ExperimentConfig, RecipeConfig, RunConfig, ScheduleConfig, SGDConfig, SplitConfig
from vertebra.heads import BoxBranchConfig, MaskBranchConfig, RCNNConfig, RPNConfig
from vertebra.models import ModelConfig
from vertebra.necks import FPNConfig


def coco_masks(split: str) -> CocoConfig:
    """Return a split of COCO 2017 in its original folder layout, with masks as bitmaps."""
    annotations = COCO / "annotations" / f"instances_{split}.json"
    return CocoConfig(images=COCO / split, annotations=annotations, class_names=COCO_CLASSES, masks=True)


CONFIG = ExperimentConfig(
    name="mask_rcnn_r50_fpn_lsj_100e_coco",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet50", norm="sync"),
        neck=FPNConfig(norm="sync"),
        head=RCNNConfig(
            rpn=RPNConfig(convolutions=2),
            box=BoxBranchConfig(convolutions=(256, 256, 256, 256), norm="sync", fc=(1024,)),
            mask=MaskBranchConfig(norm="sync"),
        ),
    ),
    train=SplitConfig(
        dataset=coco_masks("train2017"), bad_data="skip", transform=ScaledCropConfig(boxes_from_masks=True)
    ),
    val=SplitConfig(dataset=coco_masks("val2017"), transform=ResizeConfig(short_sides=(1024,), long_side=1024)),
    recipe=RecipeConfig(
        batch_size=64,
        optimizer=SGDConfig(lr=0.1, lr_batch_size=64, weight_decay=4e-5),
        schedule=ScheduleConfig(steps=184_375, milestones=(8 / 9, 26 / 27), warmup_steps=500, warmup_factor=0.067),
    ),
    run=RunConfig(checkpoint_every=5_000, loader=LoaderConfig(workers=16)),
)
