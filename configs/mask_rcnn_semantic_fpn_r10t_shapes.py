"""Mask R-CNN and Semantic FPN heads on one ResNet-10-T-FPN (1901.02446), generated shapes.

    python tools/train.py configs/mask_rcnn_semantic_fpn_r10t_shapes.py

`quickstart` with a second head, as an example of a model with two heads. Their outputs are separate; they are not
merged into a panoptic map. It reached box AP 47.1, mask AP 38.8, mIoU 18.9 and pixel accuracy 0.81 on the 100
validation images after 6 minutes on one busy CPU core: its boxes are as good as those of `quickstart`, its semantic
maps need more steps.
"""

from typing import Literal

from vertebra.configs.quickstart import CONFIG as QUICKSTART
from vertebra.configs.quickstart import shapes
from vertebra.data import JointConfig, ShapesSemanticConfig
from vertebra.heads import MultiHeadConfig, SemanticFPNConfig


def joint(split: Literal["train", "val"]) -> JointConfig:
    """Return the images of `quickstart` with objects and semantic maps."""
    objects = shapes(split)
    maps = ShapesSemanticConfig(split=split, train=objects.train, val=objects.val, size=objects.size)
    return JointConfig(parts={"detection": objects, "semantic": maps})


HEAD = MultiHeadConfig(
    heads={
        "boxes": QUICKSTART.model.head,
        "semantic": SemanticFPNConfig(levels=("p2", "p3", "p4", "p5"), channels=64, norm="batch"),
    },
    weights={"semantic": 0.5},
)

CONFIG = QUICKSTART.replace(
    name="mask_rcnn_semantic_fpn_r10t_shapes",
    model={"head": HEAD},
    train={"dataset": joint("train")},
    val={"dataset": joint("val")},
)
