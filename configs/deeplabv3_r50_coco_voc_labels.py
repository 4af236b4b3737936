"""DeepLabv3, ResNet-50 at output stride 8, COCO images with VOC's 21 labels.

    python tools/train.py configs/deeplabv3_r50_coco_voc_labels.py

torchvision's recipe: crops of 480 x 480, 30 epochs with 32 images per step, polynomial schedule, auxiliary loss. Unlike
torchvision's, the auxiliary classifier does not have ten times the learning rate. torchvision publishes mIoU 66.4 and
pixel accuracy 92.4 on val2017. Not yet run by us.

COCO is expected in `data/coco` (`train2017/`, `val2017/`, `annotations/`).
"""

from typing import Literal

from vertebra.backbones import ResNetConfig
from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import COCO
from vertebra.data import CocoSemanticConfig, LoaderConfig, ResizeConfig, ScaledCropConfig
from vertebra.engine import ExperimentConfig, RecipeConfig, RunConfig, ScheduleConfig, SGDConfig, SplitConfig
from vertebra.heads import TORCHVISION_DEEPLAB
from vertebra.models import ModelConfig
from vertebra.necks import PassthroughConfig


def coco_voc(split: Literal["train2017", "val2017"]) -> CocoSemanticConfig:
    """Return a COCO 2017 split as in torchvision's script, which trains on images with over 1,000 labeled pixels."""
    return CocoSemanticConfig(
        images=COCO / split,
        annotations=COCO / "annotations" / f"instances_{split}.json",
        categories="voc",
        min_pixels=1000 if split == "train2017" else 0,
    )


CONFIG = ExperimentConfig(
    name="deeplabv3_r50_coco_voc_labels",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet50", output_stride=8),
        weights="torchvision/ResNet50_Weights.IMAGENET1K_V1",
        neck=PassthroughConfig(),
        head=TORCHVISION_DEEPLAB,
    ),
    train=SplitConfig(
        dataset=coco_voc("train2017"),
        bad_data="skip",
        transform=ScaledCropConfig(size=(480, 480), scales=(0.5, 2.0), short_side=520),
    ),
    val=SplitConfig(dataset=coco_voc("val2017"), transform=ResizeConfig(short_sides=(520,))),
    recipe=RecipeConfig(
        batch_size=32,
        optimizer=SGDConfig(lr=0.02, lr_batch_size=32, norm_weight_decay=1e-4),
        schedule=ScheduleConfig(steps=86_700, decay="poly", warmup_steps=0),
    ),
    run=RunConfig(checkpoint_every=5_000, loader=LoaderConfig(workers=16)),
)
