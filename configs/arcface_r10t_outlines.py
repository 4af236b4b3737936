"""ArcFace, ResNet-10-T, on generated outlines: trained on 100 classes, evaluated on 40 unseen classes.

    python tools/train.py configs/arcface_r10t_outlines.py

Outlines have random colors, textures, sizes and directions, and are partly covered. Every image is used once. Measured
on two busy CPU cores (11 minutes of wall time), torch 2.14, seed 0:

| vectors of the 800 images of unseen classes, compared by cosine | recall@1 | recall@5 | recall@10 |
|---|---|---|---|
| embeddings of this run | 0.646 | 0.871 | 0.925 |
| pooled features of a classifier with the same backbone, images and steps | 0.583 | 0.878 | 0.930 |
| pooled features of the pretrained weights that both start from | 0.203 | 0.500 | 0.661 |

From random weights and with 200 classes, this recipe learned nothing in 600 steps: the embeddings moved away from all
centers, where the margin costs less. The classifier is this config with `head=ClassificationConfig()` and the training
classes in `val`; `pytest -m slow tests/engine/test_embedding_training.py` trains both.
"""

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
