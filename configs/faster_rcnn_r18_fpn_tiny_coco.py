"""Faster R-CNN, ResNet-18-FPN, overfitting 16 COCO images from scratch.

    python tools/train.py configs/faster_rcnn_r18_fpn_tiny_coco.py

A sanity check on real images, boxes and crowds that needs no GPU: a detector that cannot memorize 16 images is broken.
It reached box AP 87.8 and AP50 95.6 on the same 16 images (197 objects) after 20 minutes on two CPU cores, and AP 63.8
after half of the steps. The images are expected in `data/tiny_coco` in COCO's layout; for another folder:
`--set train.dataset.images=... --set train.dataset.annotations=...` and the same for `val`.
"""

from pathlib import Path

from vertebra.backbones import ResNetConfig
from vertebra.data import COCO_CLASSES, CocoConfig, LoaderConfig, ResizeConfig
from vertebra.engine import (
    AdamWConfig,
    EvaluationConfig,
    ExperimentConfig,
    RecipeConfig,
    RunConfig,
    ScheduleConfig,
    SplitConfig,
)
from vertebra.heads import BoxBranchConfig, MaskBranchConfig, RCNNConfig, RPNConfig
from vertebra.models import ModelConfig
from vertebra.necks import FPNConfig

TINY_COCO = Path("data/tiny_coco")


def tiny_coco(name: str, mask: MaskBranchConfig | None) -> ExperimentConfig:
    """Return the experiment; with ``mask=None`` it is for boxes only."""
    dataset = CocoConfig(
        images=TINY_COCO / "train2017",
        annotations=TINY_COCO / "annotations" / "instances_train2017.json",
        class_names=COCO_CLASSES,
        masks=mask is not None,
        subset=16,
    )
    split = SplitConfig(dataset=dataset, transform=ResizeConfig(short_sides=(224,), long_side=320))
    rpn = RPNConfig(anchor_sizes=((12.0,), (24.0,), (48.0,), (96.0,), (192.0,)), post_nms=(500, 500))
    return ExperimentConfig(
        name=name,
        model=ModelConfig(
            backbone=ResNetConfig(name="resnet18"),
            neck=FPNConfig(channels=64, norm="batch"),
            head=RCNNConfig(rpn=rpn, box=BoxBranchConfig(fc=(512,), samples=128), mask=mask),
        ),
        train=split,
        val=split,
        recipe=RecipeConfig(
            batch_size=4,
            optimizer=AdamWConfig(lr=1e-3, weight_decay=0.0),
            schedule=ScheduleConfig(steps=700, decay="cosine", warmup_steps=50),
            clip_norm=10.0,
        ),
        run=RunConfig(checkpoint_every=200, loader=LoaderConfig(workers=1)),
        evaluation=EvaluationConfig(every=250),
    )


CONFIG = tiny_coco("faster_rcnn_r18_fpn_tiny_coco", mask=None)
