"""Mask R-CNN, ResNet-50-FPN, COCO, 1x schedule (12 epochs).

    python tools/train.py configs/mask_rcnn_r50_fpn_1x_coco.py

detectron2's recipe, as for `faster_rcnn_r50_fpn_1x_coco`. detectron2 publishes box AP 38.6 and mask AP 35.2 on val2017
(8 V100, 0.26 s per step, 3.4 GB per GPU). Not yet run by us.
"""

from vertebra.backbones import ResNetConfig
from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import BETTER_THAN_GUESSING, COCO
from vertebra.data import COCO_CLASSES, CocoConfig, LoaderConfig, ResizeConfig
from vertebra.engine import ExperimentConfig, RecipeConfig, RunConfig, ScheduleConfig, SGDConfig, SplitConfig
from vertebra.heads import MaskBranchConfig, RCNNConfig
from vertebra.models import ModelConfig
from vertebra.necks import FPNConfig

THREE_TIMES = ScheduleConfig(steps=270_000, milestones=(7 / 9, 25 / 27))
"""detectron2's 3x schedule: 36 epochs; the learning rate is divided by ten after 210,000 and 250,000 steps."""


def coco_masks(split: str, transform: ResizeConfig) -> SplitConfig:
    """Return a split of COCO 2017 in its original folder layout, with polygon masks."""
    annotations = COCO / "annotations" / f"instances_{split}.json"
    dataset = CocoConfig(
        images=COCO / split, annotations=annotations, class_names=COCO_CLASSES, masks=True, mask_format="polygons"
    )
    return SplitConfig(dataset=dataset, transform=transform, bad_data="skip" if split == "train2017" else "error")


def mask_rcnn_coco(
    name: str, backbone: ResNetConfig, weights: str, schedule: ScheduleConfig = ScheduleConfig(steps=90_000)
) -> ExperimentConfig:
    """Return the experiment with the given name, backbone, weights and schedule."""
    return ExperimentConfig(
        name=name,
        model=ModelConfig(
            backbone=backbone,
            weights=weights,
            neck=FPNConfig(),
            head=RCNNConfig(mask=MaskBranchConfig(truth="polygons")),
        ),
        train=coco_masks("train2017", ResizeConfig(short_sides=(640, 672, 704, 736, 768, 800), flip=0.5)),
        val=coco_masks("val2017", ResizeConfig()),
        recipe=RecipeConfig(batch_size=16, optimizer=SGDConfig(lr=0.02, lr_batch_size=16), schedule=schedule),
        run=RunConfig(
            checkpoint_every=5_000,
            expected_ranges=BETTER_THAN_GUESSING | {"loss_mask": (1e-4, 0.69)},
            loader=LoaderConfig(workers=8),
        ),
    )


CONFIG = mask_rcnn_coco(
    "mask_rcnn_r50_fpn_1x_coco",
    ResNetConfig(name="resnet50", norm="frozen", freeze_at=2),
    "torchvision/ResNet50_Weights.IMAGENET1K_V1",
)
