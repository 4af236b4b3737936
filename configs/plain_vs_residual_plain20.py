"""Plain and residual networks compared, 1 of 4: 20 layers without shortcuts.

    for name in plain20 plain56 resnet20 resnet56; do python tools/train.py plain_vs_residual_$name; done

The experiment that motivated residual networks (1512.03385 section 4.2, there on CIFAR-10), on generated shapes: a deep
plain network trains worse than a shallow one, but a deep residual network trains well. No image is used twice, so the
training loss is the loss on unseen data.

The mean loss of the last 100 steps and the top-1 accuracy among 8 classes, with seed 0 and one thread each on a shared
machine with two cores:

    network    loss   top-1   time
    plain20    1.55   42.8     9 min 48 s
    plain56    2.07   16.2    14 min 37 s    (chance: loss 2.08, top-1 12.5)
    resnet20   1.38   46.6    10 min 03 s
    resnet56   1.58   40.4    14 min 46 s

Within 300 steps the 56-layer plain network learns nothing, and the 56-layer residual network has a loss 0.2 above that
with 20 layers. In the paper the deeper residual network becomes better, after 64,000 steps.
`tests/engine/test_plain_vs_residual.py` shows the same in seconds: after overfitting 64 images for 30 steps, the losses
of the four networks are 1.15, 1.88, 0.02 and 0.01.
"""

from typing import Literal

from vertebra.backbones import ResNetConfig
from vertebra.data import CenterCropConfig, LoaderConfig, ShapeCropsConfig
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

STEPS, BATCH, SIZE = 300, 64, 32


def crops(split: Literal["train", "val"], count: int) -> SplitConfig:
    """Return a split of ``count`` generated crops, without augmentation."""
    return SplitConfig(
        dataset=ShapeCropsConfig(split=split, count=count, size=SIZE),
        transform=CenterCropConfig(resize=SIZE, size=SIZE),
    )


def plain_vs_residual(network: Literal["plain20", "plain56", "resnet20", "resnet56"]) -> ExperimentConfig:
    """Return one of the four experiments, which differ only in the network."""
    return ExperimentConfig(
        name=f"plain_vs_residual_{network}",
        model=ModelConfig(
            backbone=ResNetConfig(name=f"cifar_{network}"),
            neck=PassthroughConfig(),
            head=ClassificationConfig(),
        ),
        train=crops("train", STEPS * BATCH),
        val=crops("val", 1000),
        recipe=RecipeConfig(
            batch_size=BATCH,
            optimizer=SGDConfig(lr=0.05, weight_decay=1e-4, norm_weight_decay=1e-4),
            schedule=ScheduleConfig(steps=STEPS, milestones=(1 / 2, 3 / 4), warmup_steps=50),
        ),
        evaluation=EvaluationConfig(batch_size=100),
        run=RunConfig(loader=LoaderConfig(workers=1)),
    )


CONFIG = plain_vs_residual("plain20")
