"""DeepLabv3+, ResNet-50 at output stride 16, CamVid street scenes in PASCAL VOC's layout.

    python tools/train.py configs/deeplabv3plus_r50_camvid.py

Not yet run by us at this size. A reduced version reached mIoU 0.40 after 7 minutes and 0.42 after 14 minutes on two
busy CPU cores (road 0.93, sky 0.92, building 0.79; poles, signs and people still 0). It used crops of 144 x 192, short
side 180, an ImageNet ResNet-50 in Caffe's style up to c4, 128 channels, no auxiliary loss, and 300 steps.

The data are CamVid as prepared for SegNet: 367 training and 101 validation images of 480 x 360, 11 classes, and label
255 for unlabeled pixels. They are expected in `data/camvid`; for another folder: `--set train.dataset.root=... --set
val.dataset.root=...`.
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
    """Return a split of CamVid, which has no background class."""
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
