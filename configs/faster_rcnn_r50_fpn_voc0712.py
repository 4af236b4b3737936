"""Faster R-CNN, ResNet-50-FPN, PASCAL VOC, trained on 2007 and 2012 trainval, evaluated on 2007 test.

    python tools/train.py configs/faster_rcnn_r50_fpn_voc0712.py

detectron2's schedule: 18,000 steps with 16 images, short side 480..800. Compare with mmdetection's AP50 of 79.5
(11-point rule) for this model, where four runs of the same config differed by up to 0.6. Not yet run by us.

VOC is expected in `data/VOCdevkit` (`VOC2007/`, `VOC2012/`); for another folder: `--set train.dataset.root=...` and the
same for `val`.
"""

from pathlib import Path

from vertebra.backbones import ResNetConfig
from vertebra.data import VOC_CLASSES, LoaderConfig, ResizeConfig, VocConfig
from vertebra.engine import ExperimentConfig, RecipeConfig, RunConfig, ScheduleConfig, SGDConfig, SplitConfig
from vertebra.heads import RCNNConfig
from vertebra.models import ModelConfig
from vertebra.necks import FPNConfig

DEVKIT = Path("data/VOCdevkit")
VOC0712 = ("VOC2007/trainval", "VOC2012/trainval")

CONFIG = ExperimentConfig(
    name="faster_rcnn_r50_fpn_voc0712",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet50", norm="frozen", freeze_at=2),
        weights="torchvision/ResNet50_Weights.IMAGENET1K_V1",
        neck=FPNConfig(),
        head=RCNNConfig(),
    ),
    train=SplitConfig(
        dataset=VocConfig(root=DEVKIT, splits=VOC0712, class_names=VOC_CLASSES),
        transform=ResizeConfig(short_sides=(480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800), flip=0.5),
    ),
    val=SplitConfig(
        dataset=VocConfig(root=DEVKIT, splits=("VOC2007/test",), class_names=VOC_CLASSES, metrics=("voc07", "coco"))
    ),
    recipe=RecipeConfig(
        batch_size=16,
        optimizer=SGDConfig(lr=0.02, lr_batch_size=16),
        schedule=ScheduleConfig(steps=18_000, milestones=(2 / 3, 8 / 9), warmup_steps=100),
    ),
    run=RunConfig(checkpoint_every=2_000, loader=LoaderConfig(workers=8)),
)
