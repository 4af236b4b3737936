"""Small experiments for tests: a few generated pictures and a model of a few thousand weights."""

from pathlib import Path

from vertebra.backbones import ResNetConfig
from vertebra.data import (
    CenterCropConfig,
    CocoConfig,
    LoaderConfig,
    RandomCropConfig,
    ResizeConfig,
    ShapeCropsConfig,
)
from vertebra.engine import AdamWConfig, ExperimentConfig, RecipeConfig, RunConfig, ScheduleConfig, SplitConfig
from vertebra.heads import BoxBranchConfig, ClassificationConfig, RCNNConfig, RPNConfig
from vertebra.models import ModelConfig
from vertebra.necks import FPNConfig, PassthroughConfig

BACKBONE = ResNetConfig(name="resnet10t", levels=("c2", "c3", "c4"))


def tiny_config(shapes: Path, **changes) -> ExperimentConfig:
    """Return a small detector of the shapes in a folder, with ``changes`` as :meth:`Config.replace` takes them."""

    def split(name: str) -> SplitConfig:
        return SplitConfig(
            dataset=CocoConfig(images=shapes / name, annotations=shapes / "annotations" / f"instances_{name}.json"),
            transform=ResizeConfig(short_sides=(64, 72), long_side=96, flip=0.5)
            if name == "train"
            else ResizeConfig(short_sides=(64,), long_side=96),
        )

    model = ModelConfig(
        backbone=BACKBONE,
        neck=FPNConfig(channels=16, norm="batch"),
        head=RCNNConfig(
            rpn=RPNConfig(samples=32, pre_nms=(100, 100), post_nms=(50, 50)),
            box=BoxBranchConfig(fc=(32,), samples=32, score_threshold=0.0),
        ),
    )
    return _experiment(model, split("train"), split("val"), changes)


def tiny_classifier(**changes) -> ExperimentConfig:
    """Return a small classifier of crops of shapes, with ``changes`` as :meth:`Config.replace` takes them."""
    train = SplitConfig(
        dataset=ShapeCropsConfig(split="train", count=8, size=32),
        transform=RandomCropConfig(size=32, scale=(0.7, 1.0)),
    )
    val = SplitConfig(
        dataset=ShapeCropsConfig(split="val", count=5, size=32), transform=CenterCropConfig(resize=32, size=32)
    )
    model = ModelConfig(backbone=BACKBONE, neck=PassthroughConfig(), head=ClassificationConfig())
    return _experiment(model, train, val, changes)


def _experiment(model: ModelConfig, train: SplitConfig, val: SplitConfig, changes: dict) -> ExperimentConfig:
    """Return an experiment of four steps of two images, with ``changes`` as :meth:`Config.replace` takes them."""
    config = ExperimentConfig(
        name="tiny",
        model=model,
        train=train,
        val=val,
        recipe=RecipeConfig(
            batch_size=2,
            optimizer=AdamWConfig(lr=1e-3),
            schedule=ScheduleConfig(steps=4, warmup_steps=2),
            clip_norm=10.0,
        ),
        run=RunConfig(checkpoint_every=2, log_every=1, loader=LoaderConfig(workers=0)),
    )
    return config.replace(**changes)
