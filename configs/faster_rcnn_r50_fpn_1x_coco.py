"""Faster R-CNN, ResNet-50-FPN, COCO, 1x schedule (12 epochs).

    python tools/train.py configs/faster_rcnn_r50_fpn_1x_coco.py

detectron2's recipe: 90,000 steps with 16 images, short side 640..800, frozen batch norm, stem and first stage frozen.
detectron2 publishes box AP 37.9 on val2017 (8 V100, 0.21 s per step, 3.0 GB per GPU). It starts from Caffe2 weights;
torchvision's ImageNet weights, which this config uses, give about half a point less. Not yet run by us.

COCO is expected in `data/coco` (`train2017/`, `val2017/`, `annotations/`); for another folder:
`--set train.dataset.images=... --set train.dataset.annotations=...` and the same for `val`. Two boxes of train2017 have
no height (cocodataset/cocoapi#355): `bad_data="skip"` skips and counts them.
"""

from pathlib import Path

from vertebra.backbones import ResNetConfig
from vertebra.data import COCO_CLASSES, CocoConfig, LoaderConfig, ResizeConfig
from vertebra.engine import ExperimentConfig, RecipeConfig, RunConfig, ScheduleConfig, SGDConfig, SplitConfig
from vertebra.heads import RCNNConfig
from vertebra.models import ModelConfig
from vertebra.necks import FPNConfig

COCO = Path("data/coco")

BETTER_THAN_GUESSING = {
    "loss_rpn_objectness": (1e-4, 0.69),
    "loss_rpn_box": (1e-4, 1.0),
    "loss_class": (1e-4, 1.66),
    "loss_box": (1e-4, 1.0),
}
"""Ranges of the losses after 500 steps that can be derived without a run.

Above 0.69 = ln 2 the RPN is no better than chance. 1.66 is the entropy of samples of which a quarter is spread evenly
over 80 classes and the rest is background: above it not even the class frequencies have been learned. A loss near zero
means that there are no objects in the training data.
"""


def coco_split(split: str, transform: ResizeConfig) -> SplitConfig:
    """Return a split of COCO 2017 in its original folder layout."""
    dataset = CocoConfig(
        images=COCO / split, annotations=COCO / "annotations" / f"instances_{split}.json", class_names=COCO_CLASSES
    )
    return SplitConfig(dataset=dataset, transform=transform, bad_data="skip" if split == "train2017" else "error")


CONFIG = ExperimentConfig(
    name="faster_rcnn_r50_fpn_1x_coco",
    model=ModelConfig(
        backbone=ResNetConfig(name="resnet50", norm="frozen", freeze_at=2),
        weights="torchvision/ResNet50_Weights.IMAGENET1K_V1",
        neck=FPNConfig(),
        head=RCNNConfig(),
    ),
    train=coco_split("train2017", ResizeConfig(short_sides=(640, 672, 704, 736, 768, 800), flip=0.5)),
    val=coco_split("val2017", ResizeConfig()),
    recipe=RecipeConfig(
        batch_size=16, optimizer=SGDConfig(lr=0.02, lr_batch_size=16), schedule=ScheduleConfig(steps=90_000)
    ),
    run=RunConfig(checkpoint_every=5_000, expected_ranges=BETTER_THAN_GUESSING, loader=LoaderConfig(workers=8)),
)
