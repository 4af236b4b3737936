"""The smallest experiment that is one: a few generated scenes and a detector of a few thousand weights."""

from pathlib import Path

from vertebra.backbones import ResNetConfig
from vertebra.data import CocoConfig, LoaderConfig, TransformConfig
from vertebra.engine import AdamWConfig, ExperimentConfig, ScheduleConfig, SplitConfig
from vertebra.heads import BoxBranchConfig, RCNNConfig, RPNConfig
from vertebra.models import ModelConfig
from vertebra.necks import FPNConfig


def tiny_config(shapes: Path, **changes) -> ExperimentConfig:
    """Four steps of two images on the shapes in a folder; ``changes`` are fields of the experiment."""

    def split(name: str) -> SplitConfig:
        return SplitConfig(
            dataset=CocoConfig(images=shapes / name, annotations=shapes / "annotations" / f"instances_{name}.json"),
            transform=TransformConfig(short_sides=(64, 72), long_side=96, flip=0.5 if name == "train" else 0.0),
        )

    fields = {
        "name": "tiny",
        "model": ModelConfig(
            backbone=ResNetConfig(name="resnet10t", levels=("c2", "c3", "c4")),
            neck=FPNConfig(channels=16, norm="batch"),
            head=RCNNConfig(
                rpn=RPNConfig(samples=32, pre_nms=(100, 100), post_nms=(50, 50)),
                box=BoxBranchConfig(fc=(32,), samples=32, score_threshold=0.0),
            ),
        ),
        "train": split("train"),
        "val": split("val"),
        "batch_size": 2,
        "optimizer": AdamWConfig(lr=1e-3),
        "schedule": ScheduleConfig(steps=4, warmup_steps=2),
        "checkpoint_every": 2,
        "log_every": 1,
        "clip_norm": 10.0,
        "loader": LoaderConfig(workers=0),
        **changes,
    }
    return ExperimentConfig(**fields)
