"""YOLOX head on a ResNet-50 with a PAFPN, COCO, 300 epochs.

    torchrun --nproc-per-node 8 tools/train.py configs/yolox_r50_pafpn_coco.py

The recipe follows YOLOX (2107.08430): 64 images per step, SGD with Nesterov momentum, cosine decay, EMA of the weights,
mosaic and mixup up to epoch 285, and the L1 loss from then on. It differs in the network (YOLOX has CSP blocks in
backbone and neck), in the pretrained backbone, and in the augmentation: each image is resized before the mosaic, not
the mosaic as a whole, and images are neither rotated nor sheared. No figures are published for this network; YOLOX-L,
with 54 M parameters, has box AP 49.7 on val2017, and YOLOX on a DarkNet-53 has 47.4. Not yet run by us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import coco_split
from vertebra.data import ColorJitterConfig, LoaderConfig, MixSequenceConfig, MixupConfig, MosaicConfig, ResizeConfig
from vertebra.engine import ExperimentConfig, RecipeConfig, RunConfig, ScheduleConfig, SGDConfig
from vertebra.heads import YOLOXConfig
from vertebra.models import ModelConfig
from vertebra.necks import PAFPNConfig

MIX = MixSequenceConfig(mixes=(MosaicConfig(), MixupConfig(alpha=100.0)), until=0.95)
"""Mixup with weights close to 0.5, as in YOLOX."""

TRAIN_TRANSFORM = ResizeConfig(
    short_sides=tuple(range(320, 641, 32)),
    long_side=1280,
    flip=0.5,
    color_jitter=ColorJitterConfig(brightness=0.4, saturation=0.7, hue=0.015),
)

CONFIG = ExperimentConfig(
    name="yolox_r50_pafpn_coco",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet50", norm="sync", levels=("c3", "c4", "c5")),
        weights="torchvision/ResNet50_Weights.IMAGENET1K_V2",
        neck=PAFPNConfig(extra="none", norm="sync", activation="silu"),
        head=YOLOXConfig(norm="sync"),
    ),
    train=coco_split("train2017", TRAIN_TRANSFORM).replace(mix=MIX),
    val=coco_split("val2017", ResizeConfig(short_sides=(640,), long_side=640)),
    recipe=RecipeConfig(
        batch_size=64,
        optimizer=SGDConfig(lr=0.01, lr_batch_size=64, nesterov=True, weight_decay=5e-4, bias_weight_decay=0.0),
        schedule=ScheduleConfig(steps=554_500, decay="cosine", floor=0.05, warmup_steps=9_240),
        ema_decay=0.9998,
        precision="bf16",
        channels_last=True,
    ),
    run=RunConfig(checkpoint_every=10_000, loader=LoaderConfig(workers=8)),
)
