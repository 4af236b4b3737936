"""Keypoint R-CNN, ResNet-18-FPN, overfitting the persons of 16 COCO images from scratch.

    python tools/train.py configs/keypoint_rcnn_r18_fpn_tiny_coco.py

TODO
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.faster_rcnn_r18_fpn_tiny_coco import TINY_COCO
from vertebra.data import CocoConfig, CocoKeypointsConfig, LoaderConfig, ResizeConfig
from vertebra.engine import (
    AdamWConfig,
    EvaluationConfig,
    ExperimentConfig,
    RecipeConfig,
    RunConfig,
    ScheduleConfig,
    SplitConfig,
)
from vertebra.heads import BoxBranchConfig, KeypointBranchConfig, RCNNConfig, RPNConfig
from vertebra.models import ModelConfig
from vertebra.necks import FPNConfig
from vertebra.ops import RoIAlignConfig

SPLIT = SplitConfig(
    dataset=CocoConfig(
        images=TINY_COCO / "train2017",
        annotations=TINY_COCO / "annotations" / "person_keypoints_train2017.json",
        keypoints=CocoKeypointsConfig(min_labeled=1),
        subset=26,
    ),
    transform=ResizeConfig(short_sides=(224,), long_side=320),
)
"""Of the first 26 images, 16 have persons with labeled keypoints."""

CONFIG = ExperimentConfig(
    name="keypoint_rcnn_r18_fpn_tiny_coco",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet18"),
        neck=FPNConfig(channels=64, norm="batch"),
        head=RCNNConfig(
            rpn=RPNConfig(anchor_sizes=((12.0,), (24.0,), (48.0,), (96.0,), (192.0,)), post_nms=(300, 300)),
            box=BoxBranchConfig(fc=(512,), samples=64),
            keypoint=KeypointBranchConfig(convolutions=(64,) * 4, pool=RoIAlignConfig(size=14)),
        ),
    ),
    train=SPLIT,
    val=SPLIT,
    recipe=RecipeConfig(
        batch_size=4,
        optimizer=AdamWConfig(lr=1e-3, weight_decay=0.0),
        schedule=ScheduleConfig(steps=500, decay="cosine", warmup_steps=50),
        clip_norm=10.0,
    ),
    run=RunConfig(checkpoint_every=100, loader=LoaderConfig(workers=0)),
    evaluation=EvaluationConfig(every=250),
)
