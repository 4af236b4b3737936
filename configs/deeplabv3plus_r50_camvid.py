"""DeepLabv3+, ResNet-50 at output stride 16, on CamVid's street scenes in PASCAL VOC's layout.

    python tools/train.py configs/deeplabv3plus_r50_camvid.py

Not yet run by us at this size. At a quarter of it, on two CPU cores with other work beside, it reached mIoU 0.40 in 7
and 0.42 in 14 minutes (road 0.93, sky 0.92, building 0.79; poles, signs, people still 0): windows of 144 x 192, short
side 180, a Caffe-style ImageNet ResNet-50 up to c4 in place of these weights, 128 channels, no auxiliary loss, 300
steps.

CamVid as SegNet prepared it: 367 images of 480x360 to train on, 101 to validate, 11 classes, 255 for what is not
labelled. It is expected in `data/camvid`; another place: `--set train.dataset.root=... --set val.dataset.root=...`.
"""

from pathlib import Path

from vertebra.backbones import ResNetConfig
from vertebra.data import ColorJitterConfig, LoaderConfig, ResizeConfig, ScaledCropConfig, VocSegmentationConfig
from vertebra.engine import (
    EvaluationConfig,
    ExperimentConfig,
    RecipeConfig,
    RunConfig,
    ScheduleConfig,
    SGDConfig,
    SplitConfig,
)
from vertebra.heads import AuxiliaryConfig, DeepLabConfig, LowLevelConfig
from vertebra.models import ModelConfig
from vertebra.necks import PassthroughConfig

JITTER = ColorJitterConfig(brightness=0.2, contrast=0.2, saturation=0.2)


def camvid(split: str) -> VocSegmentationConfig:
    """One of its lists; no class is the background."""
    names = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
    return VocSegmentationConfig(root=Path("data/camvid"), splits=(split,), class_names=names, background=False)


CONFIG = ExperimentConfig(
    name="deeplabv3plus_r50_camvid",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet50", output_stride=16),
        weights="torchvision/ResNet50_Weights.IMAGENET1K_V1",
        neck=PassthroughConfig(),
        head=DeepLabConfig(low_level=LowLevelConfig(), auxiliary=AuxiliaryConfig()),
    ),
    train=SplitConfig(
        dataset=camvid("train"),
        transform=ScaledCropConfig(size=(360, 480), scales=(0.5, 2.0), short_side=360, color_jitter=JITTER),
    ),
    val=SplitConfig(dataset=camvid("val"), transform=ResizeConfig(short_sides=(360,))),
    recipe=RecipeConfig(
        batch_size=8,
        optimizer=SGDConfig(lr=0.02, weight_decay=5e-4),
        schedule=ScheduleConfig(steps=4000, decay="poly", warmup_steps=100),
    ),
    evaluation=EvaluationConfig(every=1000),
    run=RunConfig(checkpoint_every=1000, loader=LoaderConfig(workers=4)),
)
