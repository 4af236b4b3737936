"""Keypoint R-CNN, ResNet-50-FPN, persons of COCO, 1x schedule (90,000 steps).

    python tools/train.py configs/keypoint_rcnn_r50_fpn_1x_coco.py

detectron2's recipe: 16 images per step, short sides of 640 to 800 pixels, 1500 proposals in training, a smooth L1 box
loss, and only images with at least one labeled keypoint. detectron2 publishes box AP 53.6 and keypoint AP 64.0 on
val2017 (8 V100, 0.32 s per step, 5.0 GB per GPU), from Caffe2 weights; this config starts from torchvision's ImageNet
weights. Not yet run by us.

COCO is expected in `data/coco`, with `annotations/person_keypoints_*.json`; for another folder:
`--set train.dataset.images=... --set train.dataset.annotations=...` and the same for `val`.
"""

from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import BETTER_THAN_GUESSING, COCO
from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import CONFIG as FASTER_RCNN
from vertebra.data import CocoConfig, CocoKeypointsConfig, ResizeConfig
from vertebra.engine import SplitConfig
from vertebra.heads import BoxBranchConfig, KeypointBranchConfig, RCNNConfig, RPNConfig


def coco_persons(split: str, transform: ResizeConfig) -> SplitConfig:
    """Return a split of COCO 2017 in its original folder layout, with the keypoints of persons."""
    training = split == "train2017"
    dataset = CocoConfig(
        images=COCO / split,
        annotations=COCO / "annotations" / f"person_keypoints_{split}.json",
        class_names=("person",),
        keypoints=CocoKeypointsConfig(min_labeled=1 if training else 0),
    )
    return SplitConfig(dataset=dataset, transform=transform, bad_data="skip" if training else "error")


CONFIG = FASTER_RCNN.replace(
    name="keypoint_rcnn_r50_fpn_1x_coco",
    model={
        "head": RCNNConfig(
            rpn=RPNConfig(post_nms=(1500, 1000)), box=BoxBranchConfig(beta=0.5), keypoint=KeypointBranchConfig()
        )
    },
    train=coco_persons("train2017", ResizeConfig(short_sides=(640, 672, 704, 736, 768, 800), flip=0.5)),
    val=coco_persons("val2017", ResizeConfig()),
    run={"expected_ranges": BETTER_THAN_GUESSING | {"loss_keypoint": (1e-4, 8.05)}},  # 8.05 = ln(56 x 56)
)
