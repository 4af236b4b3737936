"""ArcFace, ResNet-10-T, on generated outlines, evaluated on classes that it was not trained on."""

from vertebra.backbones import ResNetConfig
from vertebra.data import CenterCropConfig, LoaderConfig, OutlinesConfig
from vertebra.engine import (
    AdamWConfig,
    EvaluationConfig,
    ExperimentConfig,
    RecipeConfig,
    RunConfig,
    ScheduleConfig,
    SplitConfig,
)
from vertebra.heads import ArcFaceConfig
from vertebra.models import ModelConfig
from vertebra.necks import PassthroughConfig

STEPS, BATCH, SIZE = 300, 64, 40
TRAINED, UNSEEN = 100, 40

train = OutlinesConfig(split="train", num_classes=TRAINED, count=STEPS * BATCH, size=SIZE)
val = OutlinesConfig(split="val", classes_from=TRAINED, num_classes=UNSEEN, count=20 * UNSEEN, size=SIZE)
transform = CenterCropConfig(resize=SIZE, size=SIZE)

CONFIG = ExperimentConfig(
    name="arcface_r10t_outlines",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet10t", levels=("c2", "c3", "c4")),
        weights="vertebra/shapes_resnet10t",
        neck=PassthroughConfig(),
        head=ArcFaceConfig(channels=128, angular_margin=0.3, scale=16.0),
    ),
    train=SplitConfig(dataset=train, transform=transform),
    val=SplitConfig(dataset=val, transform=transform),
    recipe=RecipeConfig(
        batch_size=BATCH,
        optimizer=AdamWConfig(lr=2e-3, weight_decay=0.05),
        schedule=ScheduleConfig(steps=STEPS, decay="cosine", warmup_steps=30),
    ),
    evaluation=EvaluationConfig(batch_size=100),
    run=RunConfig(loader=LoaderConfig(workers=1)),
)
