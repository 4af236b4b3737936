"""Keypoint R-CNN, ResNet-10-T-FPN, overfitted to the persons of 16 COCO images.

    python tools/train.py configs/keypoint_rcnn_r10t_fpn_tiny_coco.py

A sanity check of keypoint targets, heatmaps and decoding that needs no GPU. It reached keypoint AP 85.7 (AP50 100) and
box AP 90.5 on the same 16 images (73 persons, 43 of them with labeled keypoints) after 5 min 36 s of CPU time on one
thread; keypoint AP 63.7 and box AP 62.9 after a third of the steps. The backbone starts from the weights of the
quickstart, which were trained on generated shapes. In pictures, keypoints that are not labeled are anywhere in the box,
since the loss ignores them. The images are expected in `data/tiny_coco` in COCO's layout; for another folder:
`--set train.dataset.images=... --set train.dataset.annotations=...` and the same for `val`.
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

SPLIT = SplitConfig(
    dataset=CocoConfig(
        images=TINY_COCO / "train2017",
        annotations=TINY_COCO / "annotations" / "person_keypoints_train2017.json",
        class_names=("person",),
        keypoints=CocoKeypointsConfig(min_labeled=1),
        subset=26,
    ),
    transform=ResizeConfig(short_sides=(160,), long_side=240),
)
"""The images of training and evaluation: the 16 of the first 26 that have persons with labeled keypoints."""

CONFIG = ExperimentConfig(
    name="keypoint_rcnn_r10t_fpn_tiny_coco",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet10t", levels=("c2", "c3", "c4")),
        weights="vertebra/shapes_resnet10t",
        neck=FPNConfig(channels=64, norm="batch"),
        head=RCNNConfig(
            rpn=RPNConfig(
                anchor_sizes=((16.0,), (32.0,), (64.0,), (128.0,)), samples=64, pre_nms=(300, 200), post_nms=(150, 100)
            ),
            box=BoxBranchConfig(fc=(256,), samples=48),
            keypoint=KeypointBranchConfig(convolutions=(64,) * 4),
        ),
    ),
    train=SPLIT,
    val=SPLIT,
    recipe=RecipeConfig(
        batch_size=4,
        optimizer=AdamWConfig(lr=1e-3, weight_decay=0.0),
        schedule=ScheduleConfig(steps=450, decay="cosine", warmup_steps=30),
        clip_norm=10.0,
    ),
    run=RunConfig(checkpoint_every=150, loader=LoaderConfig(workers=1)),
    evaluation=EvaluationConfig(every=150),
)
