"""ResNet-50, ImageNet-1k, torchvision's classic recipe (90 epochs).

    python tools/train.py configs/resnet50_imagenet.py

The recipe of torchvision's IMAGENET1K_V1 weights: batch size 256, learning rate 0.1 divided by ten every 30 epochs,
random crops and flips. Their top-1 accuracy is 76.13, top-5 92.86. Not yet run by us.

ImageNet is expected in `data/imagenet` (`train/n01440764/...`, `val/n01440764/...`); for another folder:
`--set train.dataset.root=...` and the same for `val`. Checking every file before the first step takes minutes.
"""

from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo

from vertebra.backbones import ResNetConfig
from vertebra.data import CenterCropConfig, ImageFolderConfig, LoaderConfig, RandomCropConfig
from vertebra.engine import (
    EvaluationConfig,
    ExperimentConfig,
    RecipeConfig,
    RunConfig,
    ScheduleConfig,
    SGDConfig,
    SplitConfig,
)
from vertebra.heads import ClassificationConfig
from vertebra.models import ModelConfig
from vertebra.necks import PassthroughConfig

IMAGENET = Path("data/imagenet")
IMAGES, BATCH, EPOCHS = 1_281_167, 256, 90
SYNSETS = tuple(ImageNetInfo("imagenet-1k").label_names())
"""The WordNet ids of the classes, which are the names of their folders."""

CONFIG = ExperimentConfig(
    name="resnet50_imagenet",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet50", levels=("c5",)),
        neck=PassthroughConfig(),
        head=ClassificationConfig(),
    ),
    train=SplitConfig(
        dataset=ImageFolderConfig(root=IMAGENET / "train", class_names=SYNSETS),
        transform=RandomCropConfig(size=224),
    ),
    val=SplitConfig(
        dataset=ImageFolderConfig(root=IMAGENET / "val", class_names=SYNSETS),
        transform=CenterCropConfig(resize=256, size=224),
    ),
    recipe=RecipeConfig(
        batch_size=BATCH,
        optimizer=SGDConfig(lr=0.1, lr_batch_size=BATCH, weight_decay=1e-4, norm_weight_decay=1e-4),
        schedule=ScheduleConfig(steps=round(EPOCHS * IMAGES / BATCH), milestones=(1 / 3, 2 / 3), warmup_steps=0),
    ),
    evaluation=EvaluationConfig(batch_size=100, every=50_000),
    run=RunConfig(checkpoint_every=5_000, log_every=100, loader=LoaderConfig(workers=12)),
)
