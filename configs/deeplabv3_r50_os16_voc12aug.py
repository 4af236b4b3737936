"""DeepLabv3, ResNet-50 at output stride 16, PASCAL VOC 2012 with SBD's masks (10,582 images).

    python tools/train.py configs/deeplabv3_r50_os16_voc12aug.py

mmsegmentation's 40k recipe: 16 crops of 512 x 512 per step, a polynomial schedule that ends at 1/100 of the learning
rate, weight decay on all parameters, and the brightness, contrast and saturation part of its photometric distortion.
mmsegmentation publishes mIoU 77.68 on val at output stride 8 (R101: 77.92). Not yet run by us.

VOC is expected in `data/VOCdevkit/VOC2012` with `SegmentationClassAug` and `ImageSets/Segmentation/trainaug.txt` from
SBD; for another folder: `--set train.dataset.root=... --set val.dataset.root=...`.
"""

from pathlib import Path

from vertebra.backbones import ResNetConfig
from vertebra.data import (
    VOC_CLASSES,
    ColorJitterConfig,
    LoaderConfig,
    ResizeConfig,
    ScaledCropConfig,
    VocSegmentationConfig,
)
from vertebra.engine import ExperimentConfig, RecipeConfig, RunConfig, ScheduleConfig, SGDConfig, SplitConfig
from vertebra.heads import AuxiliaryConfig, DeepLabConfig, SemanticConfig
from vertebra.models import ModelConfig
from vertebra.necks import PassthroughConfig

ROOT = Path("data/VOCdevkit/VOC2012")
CLASSES = ("background", *VOC_CLASSES)
JITTER = ColorJitterConfig(brightness=0.3, contrast=0.3, saturation=0.3)


def voc12aug(name: str, backbone: ResNetConfig, weights: str, head: SemanticConfig) -> ExperimentConfig:
    """Return the experiment with the given name, backbone, weights and head."""
    return ExperimentConfig(
        name=name,
        model=ModelConfig(backbone=backbone, weights=weights, neck=PassthroughConfig(), head=head),
        train=SplitConfig(
            dataset=VocSegmentationConfig(
                root=ROOT, splits=("trainaug",), masks="SegmentationClassAug", class_names=CLASSES
            ),
            transform=ScaledCropConfig(size=(512, 512), scales=(0.5, 2.0), short_side=512, color_jitter=JITTER),
        ),
        val=SplitConfig(
            dataset=VocSegmentationConfig(root=ROOT, splits=("val",), class_names=CLASSES),
            transform=ResizeConfig(short_sides=(512,), long_side=2048),
        ),
        recipe=RecipeConfig(
            batch_size=16,
            optimizer=SGDConfig(lr=0.01, lr_batch_size=16, weight_decay=5e-4, norm_weight_decay=5e-4),
            schedule=ScheduleConfig(steps=40_000, decay="poly", floor=0.01, warmup_steps=0),
        ),
        run=RunConfig(checkpoint_every=4_000, loader=LoaderConfig(workers=8)),
    )


CONFIG = voc12aug(
    "deeplabv3_r50_os16_voc12aug",
    ResNetConfig(name="resnet50", output_stride=16, multi_grid=(1, 2, 4)),
    "torchvision/ResNet50_Weights.IMAGENET1K_V2",
    DeepLabConfig(auxiliary=AuxiliaryConfig()),
)
