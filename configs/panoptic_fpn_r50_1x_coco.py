"""Panoptic FPN, ResNet-50-FPN, COCO, 1x schedule (12 epochs).

    python tools/train.py configs/panoptic_fpn_r50_1x_coco.py

detectron2's recipe: that of `mask_rcnn_r50_fpn_1x_coco`, with a semantic branch and COCO's panoptic files. detectron2
publishes PQ 39.4, box AP 37.6 and mask AP 34.7 on val2017 (8 V100, 0.30 s per step, 4.8 GB per GPU). Not yet run by us.

It differs from detectron2 in the masks of things: detectron2 reads them from COCO's instance files; here they are the
segments of the panoptic files, which do not overlap. COCO is expected in `data/coco`, with the JSON file
`annotations/panoptic_train2017.json` and its PNG files in `annotations/panoptic_train2017/`, and the same for val2017.
"""

from vertebra.configs.faster_rcnn_r50_fpn_1x_coco import COCO
from vertebra.configs.mask_rcnn_r50_fpn_1x_coco import CONFIG as MASK_RCNN
from vertebra.data import COCO_CLASSES, COCO_STUFF_CLASSES, CocoPanopticConfig
from vertebra.heads import PanopticFPNConfig


def coco_panoptic(split: str) -> CocoPanopticConfig:
    """Return a split of COCO 2017 in its original folder layout; crowds have their class in the class map."""
    return CocoPanopticConfig(
        images=COCO / split,
        annotations=COCO / "annotations" / f"panoptic_{split}.json",
        things=COCO_CLASSES,
        stuff=COCO_STUFF_CLASSES,
        crowd="class",
    )


CONFIG = MASK_RCNN.replace(
    name="panoptic_fpn_r50_1x_coco",
    model={"head": PanopticFPNConfig()},
    train={"dataset": coco_panoptic("train2017")},
    val={"dataset": coco_panoptic("val2017")},
)
