"""Faster R-CNN, ResNet-18-FPN, generated shapes, from scratch.

    python tools/train.py configs/faster_rcnn_r18_fpn_shapes.py

A larger version of `quickstart`, for a GPU, or for about an hour on a CPU. Not yet run by us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.data import LoaderConfig, ResizeConfig, ShapesConfig
from vertebra.engine import AdamWConfig, ExperimentConfig, RecipeConfig, RunConfig, ScheduleConfig, SplitConfig
from vertebra.heads import RCNNConfig
from vertebra.models import ModelConfig
from vertebra.necks import FPNConfig

TRAIN, VAL = 4000, 500

CONFIG = ExperimentConfig(
    name="faster_rcnn_r18_fpn_shapes",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet18"),
        neck=FPNConfig(channels=128, norm="batch"),
        head=RCNNConfig(),
    ),
    train=SplitConfig(
        dataset=ShapesConfig(split="train", train=TRAIN, val=VAL),
        transform=ResizeConfig(short_sides=(224, 256, 288), long_side=512, flip=0.5),
    ),
    val=SplitConfig(
        dataset=ShapesConfig(split="val", train=TRAIN, val=VAL),
        transform=ResizeConfig(short_sides=(256,), long_side=512),
    ),
    recipe=RecipeConfig(
        batch_size=16,
        optimizer=AdamWConfig(lr=1e-3),
        schedule=ScheduleConfig(steps=5000, decay="cosine", warmup_steps=200),
        clip_norm=10.0,
    ),
    run=RunConfig(loader=LoaderConfig(workers=4)),
)
