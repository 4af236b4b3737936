"""Plain against residual, 1 of 4: 20 layers without shortcuts.

    for name in plain20 plain56 resnet20 resnet56; do python tools/train.py plain_vs_residual_$name; done

The claim that the family began with (1512.03385 section 4.2, there on CIFAR-10), on generated shapes: of plain networks
the deep one learns worse than the shallow one, in training already; of residual networks it does not. No crop is seen
twice, so the loss in training is that on new data. Not yet run by us.
"""

from typing import Literal

from ..backbones import ResNetConfig
from ..data import CenterCropConfig, LoaderConfig, ShapeCropsConfig
from ..engine import ExperimentConfig, ScheduleConfig, SGDConfig, SplitConfig
from ..heads import ClassificationConfig
from ..models import ModelConfig
from ..necks import PassthroughConfig

STEPS, BATCH, SIZE = 600, 128, 32


def crops(split: Literal["train", "val"], count: int) -> SplitConfig:
    """Crops as they are drawn."""
    return SplitConfig(
        dataset=ShapeCropsConfig(split=split, count=count, size=SIZE),
        transform=CenterCropConfig(resize=SIZE, size=SIZE),
    )


def plain_vs_residual(network: Literal["plain20", "plain56", "resnet20", "resnet56"]) -> ExperimentConfig:
    """One of the four: they differ in the network alone."""
    return ExperimentConfig(
        name=f"plain_vs_residual_{network}",
        model=ModelConfig(
            backbone=ResNetConfig(name=f"cifar_{network}"),
            neck=PassthroughConfig(),
            head=ClassificationConfig(),
        ),
        train=crops("train", STEPS * BATCH),
        val=crops("val", 1000),
        batch_size=BATCH,
        optimizer=SGDConfig(lr=0.1, weight_decay=1e-4, norm_weight_decay=1e-4),
        schedule=ScheduleConfig(steps=STEPS, milestones=(1 / 2, 3 / 4), warmup_steps=50),
        eval_batch_size=100,
        loader=LoaderConfig(workers=1),
    )


CONFIG = plain_vs_residual("plain20")
